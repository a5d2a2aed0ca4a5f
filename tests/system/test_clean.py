"""``cfctl clean``: what dead devices leave behind is shown, then removed; what lives is not touched."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import Package, host, leaves_nothing, locks, package, refused, wait_for_state
from tests.system.test_registry import by_hand

__all__ = ["host", "package"]


def leftovers(sandbox: Sandbox, *names: str, user: str = "root") -> list[dict[str, Any]]:
    done = sandbox.cfctl("clean", *names, "--dry-run", "--json", check=False, user=user)
    document = json.loads(done.stdout)
    conforms(document, "clean")
    found: list[dict[str, Any]] = document["leftovers"]
    assert done.returncode == (3 if found else 0)
    return found


def kill_all(sandbox: Sandbox, pattern: str = "bin/run_cvd") -> None:
    sandbox.run("pkill", "-9", "-f", pattern)
    deadline = time.monotonic() + 30
    while any(re.search(pattern, command) for command in sandbox.processes().values()):
        assert time.monotonic() < deadline


def test_nothing(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package("none"))
    by_hand(host, package("refuse"), "/tmp/hand", "--base_instance_num=2", "--daemon=true")
    assert leftovers(host) == []
    assert host.cfctl("clean").stdout == "There is nothing left over.\n"
    assert [device["state"] for device in host.json("ps")["devices"]] == ["running", "running"]


def test_a_device_that_was_killed(host: Sandbox, package: Package) -> None:
    directory = package("none")
    host.cfctl("launch", "phone", "--host-package", directory)
    host.cfctl("launch", "tablet", "--host-package", directory)
    (pid,) = (p["instances"][0]["number"] for p in host.json("ps")["devices"] if p["name"] == "phone")
    kill_all(host, f"bin/run_cvd.*cvd-{pid}")
    wait_for_state(host, "stale")
    (left,) = leftovers(host)
    assert (left["kind"], left["device"]) == ("device", "phone")
    assert leftovers(host, "tablet") == []
    assert leftovers(host, "phone") == [left]

    error = refused(host, "clean", code=2)
    assert "cfctl clean --yes" in error["resolution"]
    assert "device phone" in error["details"]
    assert leftovers(host) == [left], "refused, and nothing was changed"

    document = host.json("clean", "--yes")
    conforms(document, "clean")
    assert document["cleaned"]
    assert leftovers(host) == []
    assert {d["name"]: d["state"] for d in host.json("ps")["devices"]} == {"phone": "stopped", "tablet": "running"}
    assert locks(host) == {"I", "N"}
    assert host.cfctl("logs", "phone").stdout, "its logs are kept"
    host.cfctl("rm", "--force", "phone", "tablet")
    leaves_nothing(host)


def test_a_dead_device_whose_number_is_another_ones_by_now(host: Sandbox, package: Package) -> None:
    directory = package("none")
    number = host.json("launch", "phone", "--host-package", directory)["instances"][0]["number"]
    kill_all(host)
    wait_for_state(host, "stale")
    # As a refusal advises, and as tools do that empty /var/tmp.
    host.run("rm", f"/var/tmp/cvd/lock/local-instance-{number}.lock")
    tablet = host.json("launch", "tablet", "--host-package", directory)
    assert tablet["instances"][0]["number"] == number
    sockets = ("find", "/tmp/cf_avd_0", "-type", "s")
    before = host.run(*sockets).stdout
    assert before
    said = host.cfctl("stop", "phone").stderr
    assert f"Instance {number} stays taken" in said
    states = {device["name"]: device["state"] for device in host.json("ps")["devices"]}
    assert states == {"phone": "stopped", "tablet": "running"}
    assert host.run(*sockets).stdout == before, "they lie where those of the dead one lay"
    host.cfctl("rm", "--force", "phone", "tablet")
    leaves_nothing(host)


def test_helpers_whose_supervisor_is_dead(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "phone", "--host-package", package("orphan"))
    kill_all(host)
    (left,) = leftovers(host)
    assert (left["kind"], left["device"], len(left["pids"])) == ("processes", "phone", 1)
    assert "sleep" in left["object"]
    host.cfctl("clean", "--yes")
    assert not [p for p in host.processes().values() if p.startswith("sleep")]
    assert host.json("status", "phone", check=False)["state"] == "stopped"
    host.cfctl("rm", "phone")
    leaves_nothing(host)


def test_numbers_sockets_and_directories_of_nobody(host: Sandbox) -> None:
    host.run("sh", "-c", "mkdir -p /var/tmp/cvd/lock && printf I >/var/tmp/cvd/lock/local-instance-1.lock")
    host.run("sh", "-c", "printf I >/var/tmp/cvd/lock/local-instance-2.lock")
    host.run(
        "mkdir", "-p", "/tmp/cf_avd_0/cvd-1/internal", "/tmp/cf_env_0/env-1", "/tmp/vsock_3_0", "/tmp/cf_avd_0/x"
    )
    host.run("mkdir", "-p", "/var/lib/cfctl/devices/.new-phone-12345678", "/var/lib/cfctl/devices/unmarked")
    host.run("mkdir", "-p", "/var/lib/cfctl/devices/.removed-phone-12345678")
    # The change of a directory cannot be dated back: the clock is what moves.
    young = leftovers(host)
    assert [left["kind"] for left in young] == ["number", "number", "sockets", "sockets", "sockets"]
    holder = host.start("flock", "/var/tmp/cvd/lock/local-instance-2.lock", "sleep", "60")
    while len(found := leftovers(host)) != 4:
        assert holder.poll() is None
    assert "number 1" in found[0]["object"], "2 is held by somebody"
    host.cfctl("clean", "--yes")
    holder.terminate()
    holder.wait()
    assert host.run("cat", "/var/tmp/cvd/lock/local-instance-1.lock").stdout == "N"
    assert host.run("cat", "/var/tmp/cvd/lock/local-instance-2.lock").stdout == "I"
    left = host.run("sh", "-c", "cd /tmp && find cf_* vsock_* 2>/dev/null", check=False).stdout.split()
    assert left == ["cf_avd_0", "cf_avd_0/x"]
    assert host.run("ls", "-A", "/var/lib/cfctl/devices").stdout.split() == [
        ".new-phone-12345678",
        ".removed-phone-12345678",
        "unmarked",
    ], "what was made a moment ago may be a verb's that is at work"


def test_what_is_another_users_is_left_alone(host: Sandbox, package: Package) -> None:
    host.run("mkdir", "-p", "/tmp/cf_avd_0/cvd-1")
    host.run("sh", "-c", "mkdir -p /var/tmp/cvd/lock && printf I >/var/tmp/cvd/lock/local-instance-1.lock")
    host.run("chmod", "777", "/var/tmp/cvd/lock")
    host.run("chmod", "666", "/var/tmp/cvd/lock/local-instance-1.lock")
    assert leftovers(host, user="tester") == []
    # In a directory that is named after us, but another user's, nothing is deleted either.
    host.run("mkdir", "-p", "/tmp/cf_avd_1000/cvd-2")
    assert leftovers(host, user="tester") == []
    assert "cf_avd_1000" not in str(leftovers(host))
    host.run(
        "sh", "-c", "mkdir /tmp/precious && rm -rf /tmp/cf_avd_0/cvd-1 && ln -s /tmp/precious /tmp/cf_avd_0/cvd-1"
    )
    assert [left["kind"] for left in leftovers(host)] == ["number"], "a link leads who knows where"
    host.run("rm", "-r", "/tmp/cf_avd_1000")
    host.cfctl("launch", "phone", "--host-package", package("none"), user="tester")
    assert [left["kind"] for left in leftovers(host)] == ["number"], "root sees that tester's device lives"


def test_while_a_launcher_is_at_work_nobodys_number_is_nobodys(host: Sandbox) -> None:
    host.run("sh", "-c", "mkdir -p /var/tmp/cvd/lock && printf I >/var/tmp/cvd/lock/local-instance-1.lock")
    host.run("ln", "-s", "/bin/sleep", "/tmp/cvd")
    cvd = host.start("/tmp/cvd", "60")
    while "/tmp/cvd 60" not in host.processes().values():
        assert cvd.poll() is None
    assert leftovers(host) == []
    assert [d["state"] for d in host.json("ps")["devices"]] == ["preparing"]
    kill_all(host, "^/tmp/cvd 60")
    cvd.wait()
    assert [left["kind"] for left in leftovers(host)] == ["number"]


def test_asked_on_a_terminal(host: Sandbox) -> None:
    for answer, expected in (("n", 1), ("y", 0)):
        host.run("mkdir", "-p", "/tmp/cf_avd_0/cvd-1")
        command = " ".join(host.cfctl_argv("clean"))
        done = host.run("script", "-qec", command, "/dev/null", stdin=f"{answer}\n", env={"TERM": "xterm"})
        assert "sockets in /tmp/cf_avd_0/cvd-1: nobody listens on any of them" in done.stdout
        assert len(leftovers(host)) == expected


@pytest.mark.parametrize("forgotten", [False, True])
def test_taps_that_were_made_on_request(sandbox: Sandbox, package: Package, forgotten: bool) -> None:
    sandbox.cfctl("host", "setup", "--lazy", "--instances", "2")
    sandbox.cfctl("launch", "phone", "--host-package", package("none"))
    assert "cvd-etap-01" in sandbox.snapshot()["links"]
    kill_all(sandbox)
    wait_for_state(sandbox, "stale")
    if forgotten:
        sandbox.run("rm", "-rf", "/var/lib/cfctl/devices/phone")
    kinds = {left["kind"] for left in leftovers(sandbox)}
    assert kinds == ({"number", "sockets"} if forgotten else {"device"})
    sandbox.cfctl("clean", "--yes")
    assert leftovers(sandbox) == []
    assert "cvd-etap-01" not in sandbox.snapshot()["links"]
    sandbox.cfctl("rm", "phone", check=False)
