"""The sandbox itself: it is a host of its own, and leaves the machine as it was."""

from __future__ import annotations

from pathlib import Path

from tests.system.sandbox import Sandbox


def test_is_a_host_of_its_own(sandbox: Sandbox) -> None:
    before = sandbox.snapshot()
    assert list(before["links"]) == ["lo"]
    assert before["processes"] == []
    assert Path("/proc/net/dev").read_text() != sandbox.run("cat", "/proc/net/dev").stdout


def test_snapshot_sees_changes(sandbox: Sandbox) -> None:
    before = sandbox.snapshot()
    sandbox.run("ip", "link", "add", "br9", "type", "bridge")
    after = sandbox.snapshot()
    assert after["links"] != before["links"]
    assert after["sysctls"] != before["sysctls"]


def test_ordinary_user(sandbox: Sandbox) -> None:
    assert "uid=1000(tester)" in sandbox.run("id", user="tester").stdout
    assert "970(cvdnetwork)" in sandbox.run("id", user="tester").stdout
    sandbox.cfctl("--version", user="tester")
