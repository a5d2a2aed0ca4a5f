"""The RPM packages, installed by rpm into a tree that has what they require under the names that RHEL gives it.

The tree is a Debian: rpm, the scriptlets and the programs are real; what no RHEL has seen is in docs/packages.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging import built
from tests.system.package_tree import Tree
from tests.system.test_packages_deb import links, tap_in_use
from tools.packages import rpm as make_rpm
from tools.packages import stage
from tools.packages.targets import TARGETS, architecture

pytestmark = pytest.mark.system

#: What EL9 has of what the packages require: names of its packages (host_resources.md section 6), and files.
_EL9 = (
    *("dnsmasq", "findutils", "glibc = 2.34", "iproute", "kmod", "libstdc++", "nftables", "python3.11", "qemu-kvm"),
    *("shadow-utils", "systemd", "/bin/sh", "zlib", "/usr/bin/python3.11"),
)

_SPEC = """
Name: el9
Version: 9
Release: 1
Summary: Stands for the packages of EL9
License: None
BuildArch: noarch
{provides}
%description
Nothing.
%files
"""


@pytest.fixture(scope="module")
def el9(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("el9")
    spec = work / "el9.spec"
    spec.write_text(_SPEC.format(provides="\n".join(f"Provides: {name}" for name in _EL9)))
    subprocess.run(
        ["env", f"HOME={work}", "rpmbuild", "-bb", "--quiet", "--define", f"_topdir {work}", spec],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return next(work.rglob("*.rpm"))


def rpm(tree: Tree, *args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run rpm inside; files are copied there."""
    words = [tree.bring(arg)[0] if isinstance(arg, Path) else arg for arg in args]
    return tree.run("rpm", "--dbpath", "/var/lib/rpm", *words, check=check)


def install(tree: Tree, packages: built.Built, el9: Path, *names: str, how: str = "-ivh") -> str:
    done = rpm(tree, how, el9, *(packages.rpm[name] for name in names or built.NAMES))
    return done.stdout + done.stderr


def newer(packages: built.Built, work: Path) -> list[Path]:
    """Make the same packages of a later version, whose files of settings differ."""
    staged = work / "stage"
    for name, file in packages.rpm.items():
        tree = staged / name
        tree.mkdir(parents=True)
        with file.open("rb") as data:
            archive = subprocess.run(["rpm2archive", "-n", "-"], stdin=data, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-C", tree, "-x"], input=archive, check=True)
        for settings in (path for path in (tree / "etc").rglob("*") if path.is_file()):
            settings.write_text(settings.read_text() + "# Of the new version.\n")
    # The largest, which nothing here needs: it is quicker.
    for big in staged.glob("cfctl/usr/lib/cfctl/lib/*/site-packages/av*"):
        shutil.rmtree(big)
    (work / "made").mkdir()
    laid_out = stage.Stage(staged, TARGETS[built.RPM], architecture(), int(built.epoch()), "0.1.1")
    return make_rpm.build(laid_out, work / "made")


def test_the_packages_work_as_installed(tree: Tree, packages: built.Built, el9: Path) -> None:
    missing = rpm(tree, "-i", "--test", *packages.rpm.values(), check=False).stderr
    lacks = {line.split(" is needed by ")[0].strip() for line in missing.splitlines() if "is needed by" in line}
    # Nothing is required that EL9 has not, and what stands for EL9 has nothing that is not required.
    assert {name.partition(" ")[0] for name in lacks} == {name.partition(" ")[0] for name in _EL9}
    said = install(tree, packages, el9)
    assert "could be compiled" not in said
    assert "scriptlet failed" not in said
    assert tree.run("cfctl", "--version").stdout == "cfctl 0.1.0\n"
    assert json.loads(tree.run("cfctl", "host", "plan", "--json", check=False).stdout)["state"] == "absent"
    assert tree.run("/usr/lib/cuttlefish-common/bin/capability_query.py", "vsock").returncode == 0
    assert tree.run("getent", "group", "cvdnetwork").stdout.startswith("cvdnetwork:")
    enabled = {path.name for path in tree.path("/etc/systemd/system").rglob("*.service") if path.is_symlink()}
    assert {"cfctl-host-resources.service", "cuttlefish-host-resources.service"} <= enabled
    # Nothing but settings and bytecode differs from what rpm has written down.
    assert rpm(tree, "-V", "--nodeps", *built.NAMES).stdout == ""
    assert list(tree.path("/usr/lib/cfctl").rglob("*.pyc"))
    rpm(tree, "-e", *built.NAMES)
    left = tree.run("find", "/", "-xdev", "-name", "*cfctl*", "-not", "-path", "/packages/*").stdout.split()
    assert left == []
    assert not tree.path("/usr/lib/cuttlefish-common").exists()


def test_an_upgrade_keeps_devices_and_settings_and_a_removal_refuses_while_they_are_up(
    tree: Tree, packages: built.Built, el9: Path, tmp_path: Path
) -> None:
    tree.systemd()
    names = ("cfctl", "cfctl-host-resources", "cfctl-relay")
    tree.path("/run/standin-NetworkManager.service").touch()
    install(tree, packages, el9, *names)
    asked = tree.asked_of_systemd()
    # It has read which interfaces it is to leave alone before they are there.
    assert asked.index("reload NetworkManager.service") < asked.index("start cfctl-host-resources.service")
    before = links(tree)
    assert len(before) == 42, "a server is ready after one install"
    config, defaults = "/etc/cfctl/config.toml", "/etc/default/cuttlefish-host-resources"
    limits = "/etc/security/limits.d/10-cfctl.conf"
    tree.path(config).write_text("[host]\ninstances = 10\ndns = 'host'\n")
    tree.path(defaults).write_text("num_cvd_accounts=7\n")
    # Its owner's decision, which the next version keeps.
    tree.run("systemctl", "disable", "cfctl-host-resources.service")
    tree.asked_of_systemd()
    with tap_in_use(tree):
        later = {path.name.rpartition("-0.1.1-")[0]: path for path in newer(packages, tmp_path / "newer")}
        said = rpm(tree, "-U", *(later[name] for name in names))
        assert "scriptlet failed" not in said.stdout + said.stderr
        assert rpm(tree, "-q", "--qf", "%{NAME} %{VERSION}\n", *names).stdout.split()[1::2] == ["0.1.1"] * 3
        asked = tree.asked_of_systemd()
        assert not [line for line in asked if line.startswith(("stop", "restart", "--no-reload disable"))]
        assert "reload cfctl-host-resources.service" in asked
        assert "try-restart cfctl-host-run.service" in asked
        assert "try-restart cfctl-relay.service" in asked
        assert links(tree) == before
        assert not list(tree.path("/etc/systemd/system").rglob("*-host-resources.service"))
        # What somebody has changed stays, and what is new lies beside it; what nobody has changed is the new one.
        for file in (config, defaults):
            assert "# Of the new version." not in tree.path(file).read_text()
            assert "# Of the new version." in tree.path(f"{file}.rpmnew").read_text()
        assert "dns = 'host'" in tree.path(config).read_text()
        assert tree.path(defaults).read_text() == "num_cvd_accounts=7\n"
        assert "# Of the new version." in tree.path(limits).read_text()
        assert tree.run("cfctl", "--version").returncode == 0
        assert list(tree.path("/usr/lib/cfctl").rglob("*.pyc"))

        refused = rpm(tree, "-e", "cfctl-host-resources", "cfctl", "cfctl-relay", check=False)
        assert refused.returncode != 0
        assert "cvd-mtap-01" in refused.stderr
        assert links(tree) == before
        assert tree.path("/usr/lib/systemd/system/cfctl-host-resources.service").exists()
    device = tree.path("/var/lib/cfctl/devices/phone")
    device.mkdir(parents=True)
    (device / "device.json").write_text("{}")
    # The relay was not kept by anything: no device needs it.
    said = rpm(tree, "-e", *(name for name in names if rpm(tree, "-q", name, check=False).returncode == 0))
    assert "/var/lib/cfctl/devices/phone" in said.stderr
    assert (device / "device.json").exists()
    assert links(tree) == {}
    assert "dns = 'host'" in tree.path(f"{config}.rpmsave").read_text()
    assert tree.path(f"{defaults}.rpmsave").read_text() == "num_cvd_accounts=7\n"
    assert not tree.path("/usr/lib/cfctl").exists()
