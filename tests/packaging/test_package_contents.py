"""What is in the packages: nothing slips in or out, everything is root's, and it loads on the oldest target."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging import built, listing
from tools.packages import elf_versions
from tools.packages.targets import TARGETS

REPO = built.REPO
GOLDEN = Path(__file__).with_name("golden")
SITE = "usr/lib/cfctl/lib/python3.11/site-packages"
RELAY = (REPO / "packaging/systemd/cfctl-relay.service").exists()


@pytest.fixture(scope="module")
def unpacked(packages: built.Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main package's files."""
    tree = tmp_path_factory.mktemp("cfctl")
    subprocess.run(["dpkg-deb", "-x", packages.deb["cfctl"], tree], check=True)
    return tree


def golden(family: str, name: str) -> list[str]:
    lines = (GOLDEN / family / name).read_text().splitlines()
    # The relay's unit comes with the relay.
    return [line for line in lines if RELAY or name != "cfctl-relay" or "/systemd" not in line]


@pytest.mark.parametrize("name", built.NAMES)
@pytest.mark.parametrize("family", ["deb", "rpm"])
def test_the_files_are_those_of_the_golden_list(packages: built.Built, family: str, name: str) -> None:
    file = getattr(packages, family)[name]
    found = getattr(listing, family)(file)
    assert listing.without_contents(found) == golden(family, name)
    assert {line.split()[1] for line in found} == {"root/root"}
    assert not [line for line in found if re.match(r"-.{7}w|-..s|-.{5}s", line)], "writable for all, or setuid"
    assert not [path for path in listing.paths(found) if "__pycache__" in path]


def test_cfctl_itself_is_all_there(packages: built.Built, unpacked: Path) -> None:
    ours = {path.relative_to(REPO / "cfctl") for path in built.sources() if path.is_relative_to(REPO / "cfctl")}
    # The profiles of GPUs are a link in the checkout.
    ours |= {Path("gpu/profiles") / path.relative_to(REPO / "gpu") for path in (REPO / "gpu").rglob("*.toml")}
    packed = {path.relative_to(unpacked / SITE / "cfctl") for path in (unpacked / SITE / "cfctl").rglob("*")}
    assert ours - {Path("gpu/profiles")} <= packed
    extra = {path for path in packed - ours if (unpacked / SITE / "cfctl" / path).is_file()}
    assert {path.parts[:2] for path in extra} <= {("gpu", "profiles")}
    for family in ("deb", "rpm"):
        paths = listing.paths(getattr(listing, family)(getattr(packages, family)["cfctl"]))
        for page in (REPO / "docs").glob("*.md"):
            assert f"/usr/share/doc/cfctl/{page.name}" in paths
        for schema in (REPO / "docs/schema").glob("*.json"):
            assert f"/usr/share/doc/cfctl/schema/{schema.name}" in paths


def test_the_libraries_are_those_of_the_lock_file(unpacked: Path) -> None:
    locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (REPO / "requirements.lock").read_text(), re.MULTILINE))
    del locked["setuptools"]
    said = (unpacked / "usr/share/doc/cfctl/bundled.txt").read_text().splitlines()[2:]
    rows = dict(line.split(": ", 1) for line in said)
    found = dict(name.rsplit(" ", 1) for name in rows)
    assert {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()} == {
        re.sub(r"[-_.]+", "-", name).lower(): version for name, version in locked.items()
    }
    assert [name for name, licence in rows.items() if licence == "see its files"] == []
    # The texts themselves, too.
    without = [
        path.name
        for path in (unpacked / SITE).glob("*.dist-info")
        if not [text for text in path.rglob("*") if re.search("(?i)licen[cs]e|copying|notice", text.name)]
    ]
    assert without == ["qemu_qmp-0.0.6.dist-info"] or without == []


def test_no_library_needs_more_than_the_oldest_target_has(unpacked: Path, tmp_path: Path) -> None:
    libraries = list(elf_versions.libraries(unpacked))
    assert len(libraries) >= 8
    newest: tuple[int, ...] = (0, 0)
    for path in libraries:
        data = path.read_bytes()
        found = elf_versions.versions(data)
        # Another way to read it: the names as they lie in the file.
        assert found <= {name.decode() for name in re.findall(rb"[A-Z][A-Z]+\w*_[0-9.]+(?=\0)", data)}
        newest = max([newest, *(tuple(map(int, v[6:].split(".")[:2])) for v in found if v.startswith("GLIBC_2"))])
    assert (2, 14) < newest <= (2, 28)
    elf_versions.check(unpacked)
    with pytest.raises(SystemExit, match=r"needs GLIBC_2\.\d+; the oldest target has 2\.5"):
        elf_versions.check(unpacked, newest=(2, 5))


def test_no_library_needs_another_that_is_not_a_dependency(unpacked: Path) -> None:
    from cfctl import elf

    # libc6, libstdc++6 (and libgcc-s1, which it needs) in Debian; glibc, libstdc++ and libgcc in RHEL.
    system = r"ld-linux.*|libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s"
    for path in elf_versions.libraries(unpacked):
        names = {Path(name).name.partition(".so")[0] for name in elf.needed(path.read_bytes())}
        assert [name for name in names if not re.fullmatch(system, name)] == [], path


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cfctl", "python3.11, libc6 (>= 2.28), libstdc++6"),
        ("cfctl-host-resources", "cfctl (>= 0.1.0), dnsmasq-base, iproute2, kmod, nftables | iptables, passwd"),
        ("cfctl-docker", "cfctl (>= 0.1.0)"),
        ("cfctl-relay", "cfctl (>= 0.1.0)"),
    ],
)
def test_debian_names(packages: built.Built, name: str, wanted: str) -> None:
    done = subprocess.run(
        ["dpkg-deb", "-f", packages.deb[name], "Depends"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == wanted


def test_every_target_is_of_a_python_that_cfctl_runs_on() -> None:
    assert {target.family for target in TARGETS.values()} == {"deb", "rpm"}
    for target in TARGETS.values():
        assert target.python >= (3, 11)
        # Where the system's own is another one, the package of this one has its version in its name.
        assert target.python_package in (target.python_name, "python3")


def test_a_second_build_elsewhere_is_the_same_to_the_byte(packages: built.Built, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    for path in built.sources():
        target = copy / path.relative_to(REPO)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o700 if os.access(path, os.X_OK) else 0o600)
    (copy / "cfctl/gpu/profiles").unlink(missing_ok=True)
    (copy / "cfctl/gpu/profiles").symlink_to("../../gpu")
    # The libraries were fetched and checked by the first build.
    (copy / "build/packages").mkdir(parents=True)
    (copy / "build/packages/wheels").symlink_to(built.BUILD / "wheels")
    log = ["git", "-C", str(REPO), "log", "-1", "--format=%ct"]
    epoch = subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()
    env = built.environment(SOURCE_DATE_EPOCH=epoch, TZ="Asia/Tokyo", LC_ALL="C", HOME=str(tmp_path), USER="nobody")
    for family, first in (("deb", packages.deb), ("rpm", packages.rpm)):
        out = tmp_path / family
        subprocess.run(
            ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-m", "tools.packages", family, "--out", out],
            cwd=copy,
            env=env,
            check=True,
            timeout=600,
        )
        second = {file.name: file.read_bytes() for file in out.iterdir()}
        assert second.keys() == {file.name for file in first.values()}
        assert [file.name for file in first.values() if file.read_bytes() != second[file.name]] == []
