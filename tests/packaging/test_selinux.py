"""The labels for SELinux: they compile, and are of files that there are. No host with SELinux has loaded them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from cfctl import paths
from tests.packaging import built, listing

SOURCE = built.REPO / "packaging/selinux"


def contexts() -> dict[str, tuple[str, str]]:
    """Return pattern -> kind of file, type."""
    lines = (SOURCE / "cfctl.fc").read_text().splitlines()
    fields = [line.split("\t") for line in lines if not line.startswith("#")]
    assert all(line[-1].startswith("system_u:object_r:") and line[-1].endswith(":s0") for line in fields)
    return {line[0]: ("".join(line[1:-1]), line[-1].split(":")[2]) for line in fields}


def test_the_module_compiles(tmp_path: Path) -> None:
    module, package, back = (tmp_path / f"cfctl.{suffix}" for suffix in ("mod", "pp", "fc"))
    commands: list[list[str | Path]] = [
        ["checkmodule", "-M", "-m", "-o", module, SOURCE / "cfctl.te"],
        ["semodule_package", "-o", package, "-m", module, "-f", SOURCE / "cfctl.fc"],
        ["semodule_unpackage", package, tmp_path / "out.mod", back],
    ]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert back.read_bytes() == (SOURCE / "cfctl.fc").read_bytes()
    # A type that is used and not asked for would keep the module from being loaded.
    declared = set(re.findall(r"type (\w+);", (SOURCE / "cfctl.te").read_text()))
    assert declared == {label for _, label in contexts().values()}


def test_programs_are_labelled_as_programs(packages: built.Built) -> None:
    def label(path: str) -> str:
        found = [kind for pattern, (_, kind) in contexts().items() if re.fullmatch(pattern, path)]
        assert len(found) == 1, path
        return found[0]

    shipped = [
        path
        for file in packages.rpm.values()
        for path in listing.paths(listing.rpm(file))
        if path.startswith(("/usr/lib/cfctl/bin", "/usr/lib/cfctl/maintain", "/usr/lib/cuttlefish-common/bin"))
    ]
    assert len(shipped) == 6
    assert {label(path) for path in shipped} == {"bin_t"}
    places = paths.Paths(*(Path(f"/{top}/cfctl") for top in ("etc", "var/lib", "var/cache", "run")))
    assert label(f"{places.host_packages}/0123abcd/bin/launch_cvd") == "bin_t"
    assert label(f"{places.state}/devices/phone/device.json") == "var_lib_t"
    for run in ("/run", "/var/run"):
        assert label(f"{run}/cfctl/relay.sock") == "var_run_t"
        assert label(f"{run}/cuttlefish-dnsmasq-cvd-ebr.pid") == "dnsmasq_var_run_t"
