"""``cfctl demo`` as ``make demo`` runs it, on a host of its own."""

from __future__ import annotations

from pathlib import Path

from tests.schemas import conforms
from tests.system.sandbox import Sandbox

#: The two switches that stay on (DESIGN section 5), and what the first run of anything leaves in caches.
_PARTS = ("links", "addresses", "rules", "processes", "sysctls")


def test_demo_shows_a_vm_and_leaves_the_host_as_it_was(sandbox: Sandbox, host_package: Path) -> None:
    before = sandbox.snapshot()
    done = sandbox.cfctl("demo")
    assert "the VM says: Linux" in done.stdout
    assert "GPU mode: guest_swiftshader" in done.stdout
    assert "Everything was taken down again" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr, "plain lines without a terminal"
    assert "Screens:" not in done.stderr, "advice about a device that is removed"
    after = sandbox.snapshot()
    for part in _PARTS:
        assert after[part] == before[part], part
    assert sandbox.run("cat", "/proc/mounts").stdout.count("cfctl") <= 2


def test_demo_keeps_what_it_found_and_what_it_was_told_to_keep(sandbox: Sandbox, host_package: Path) -> None:
    sandbox.cfctl("host", "setup", "--instances", "2")
    before = sandbox.snapshot()
    document = sandbox.json("demo", "--keep")
    conforms(document, "demo")
    assert document["kept"]
    assert document["device"]["state"] == "running"
    assert document["uname"].startswith("Linux")
    assert sandbox.snapshot()["links"].keys() == before["links"].keys()
    # A second demo refuses politely, and changes nothing.
    done = sandbox.cfctl("demo", check=False)
    assert done.returncode == 1
    assert "cfctl rm --force demo" in done.stderr
    assert sandbox.json("status", "demo")["state"] == "running"
    sandbox.cfctl("rm", "--force", "demo")
    assert sandbox.snapshot()["links"] == before["links"]


def test_demo_refuses_where_upstream_owns_the_network(sandbox: Sandbox) -> None:
    sandbox.run("ip", "link", "add", "cvd-ebr", "type", "bridge", "forward_delay", "0", "stp_state", "0")
    sandbox.run("ip", "addr", "add", "192.168.98.1/24", "brd", "+", "dev", "cvd-ebr")
    sandbox.run("ip", "link", "set", "cvd-ebr", "up")
    before = sandbox.snapshot()
    done = sandbox.cfctl("demo", check=False)
    assert done.returncode == 1
    assert "cvd-ebr" in done.stderr
    assert sandbox.snapshot() == before


def test_demo_that_fails_halfway_takes_down_what_it_has_made(sandbox: Sandbox, host_package: Path) -> None:
    before = sandbox.snapshot()
    place = sandbox.run("sh", "-c", "command -v qemu-system-x86_64").stdout.strip()
    sandbox.run("mount", "--bind", "/dev/null", place)
    done = sandbox.cfctl("demo", check=False)
    assert done.returncode == 4, done.stderr
    assert "set up the host network" in done.stderr
    assert "qemu-system-x86" in done.stderr
    sandbox.run("umount", place)
    after = sandbox.snapshot()
    for part in _PARTS:
        assert after[part] == before[part], part
    assert sandbox.json("ps")["devices"] == []
