"""Boots whose follower goes away or is overtaken: what comes after a boot is done, and no new boot is stopped."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import leaves_nothing, wait_for_state
from tests.system.test_device_faults import package as package
from tests.system.watching import watching

Package = Callable[..., str]

#: Reaches every device; what runs on it waits for a file, and is written down.
_ADB = """#!/bin/sh
case "$3" in
get-state) echo device ;;
shell) echo "$4" >>/tmp/adb/begun; until [ -e /tmp/adb/go ]; do sleep 0.05; done; echo "$4" >>/tmp/adb/done ;;
esac
"""


@pytest.fixture
def host(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Give a host whose network serves two instances, and whose adb is ours."""
    sandbox.cfctl("host", "setup", "--instances", "2")
    place = Path(f"/proc/{sandbox.pid}/root/tmp/adb")
    place.mkdir()
    (place / "adb").write_text(_ADB)
    (place / "adb").chmod(0o755)
    (place / "ready").write_text("shell one\nshell two\n")
    sandbox.env["PATH"] = f"/tmp/adb:{sandbox.environment()['PATH']}"
    yield sandbox
    sandbox.run("rm", "-r", "/tmp/adb")


def adb_file(host: Sandbox, name: str) -> Path:
    return Path(f"/proc/{host.pid}/root/tmp/adb/{name}")


def phone(host: Sandbox) -> dict[str, Any]:
    (found,) = host.json("ps")["devices"]
    return dict(found)


def run_cvd(host: Sandbox) -> list[int]:
    return [pid for pid, args in host.processes().items() if "/bin/run_cvd" in args]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def begun(host: Sandbox, *words: str) -> subprocess.Popen[str]:
    """Start a verb and return when it does what comes after the boot."""
    adb_file(host, "begun").unlink(missing_ok=True)
    verb = host.start(*host.cfctl_argv(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(adb_file(host, "begun").exists)
    return verb


def test_a_boot_that_nobody_follows_any_more_is_taken_up(host: Sandbox, package: Package) -> None:
    after = ("--after-boot", "/tmp/adb/ready")
    verb = begun(host, "launch", "phone", "--host-package", package("none"), *after)
    assert "failure" not in phone(host), "somebody is at it"
    host.run("pkill", "-KILL", "-f", "cfctl launch phone")
    verb.communicate(timeout=60)
    left = phone(host)
    conforms(left, "device")
    assert left["state"] == "booting"
    assert left["failure"] == {
        "phase": "after-boot",
        "brief": "nobody does any more what --after-boot says: cfctl restart phone",
    }
    assert not adb_file(host, "done").exists()
    adb_file(host, "go").write_text("")
    with watching(host) as watch:
        wait_for_state(host, "running")
        told = "follow the boot of phone: nobody does any more"
        watch.until(lambda: any(told in e["text"] for e in watch.of("note")), "it is told")
    # The one that was under way ends as well; those of the keeper come one after the other.
    wait_for(lambda: adb_file(host, "done").read_text().split().count("two") == 1)
    assert phone(host)["booted_at"]
    assert "failure" not in phone(host)
    host.cfctl("rm", "--force", "phone")


def test_a_watcher_that_ends_in_the_middle_of_a_boot(host: Sandbox, package: Package) -> None:
    adb_file(host, "go").write_text("")
    after = ("--after-boot", "/tmp/adb/ready", "--restart", "always")
    host.cfctl("launch", "phone", "--host-package", package("none"), *after)
    adb_file(host, "go").unlink()
    adb_file(host, "begun").unlink()
    adb_file(host, "done").unlink()
    with watching(host) as watch:
        host.run("kill", "-9", *map(str, run_cvd(host)))
        watch.until(lambda: adb_file(host, "begun").exists(), "it boots again, and does what comes after")
    assert phone(host)["failure"]["phase"] == "after-boot"
    adb_file(host, "go").write_text("")
    with watching(host):
        wait_for_state(host, "running")
    assert adb_file(host, "done").read_text().split()[-1] == "two"
    host.cfctl("rm", "--force", "phone")


def test_a_launch_that_was_overtaken_leaves_the_new_boot_alone(host: Sandbox, package: Package) -> None:
    launch = begun(host, "launch", "phone", "--host-package", package("none"), "--after-boot", "/tmp/adb/ready")
    old = run_cvd(host)
    restart = begun(host, "restart", "phone")
    new = run_cvd(host)
    assert new != old
    # Now the first one hears that its command failed: it looks for what it has to stop, and must find nothing.
    host.run("pkill", "--oldest", "-f", "/tmp/adb/adb -s 127.0.0.1:6520 shell")
    _, said = launch.communicate(timeout=60)
    assert launch.returncode == 1, said
    assert run_cvd(host) == new
    adb_file(host, "go").write_text("")
    restart.communicate(timeout=60)
    assert restart.returncode == 0
    assert json.loads(host.cfctl("status", "phone", "--json").stdout)["state"] == "running"
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)
