"""The system's relay on a host with users: each has what is his own, and acts as himself."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cfctl.launch.generation import Generation
from tests import generations
from tests.relay.relays import wait
from tests.system.relay_host import Host, serving
from tests.system.sandbox import UID, USER, Sandbox
from tests.system.test_device_faults import locks

#: Another user, who is in no group.
_OTHER = "nobody"


@pytest.fixture
def host(sandbox: Sandbox) -> Iterator[Host]:
    """Give a host that serves three instances, with a relay."""
    sandbox.cfctl("host", "setup", "--instances", "3")
    with serving(sandbox) as host:
        yield host


def _names(answers: list[Any]) -> list[str]:
    return [device["name"] for device in answers[0].get("devices", [])]


def test_a_device_belongs_to_its_user(host: Host, tmp_path: Path) -> None:
    package = host.package(tmp_path)
    *events, device, ended = host.call("Devices/Launch", {"name": "phone", "host_package": package})
    assert ended == {"status": "OK"}
    assert any(event.get("phase", {}).get("phase") == "booted" for event in events)
    assert (device["device"]["state"], device["device"]["owner"]) == ("running", USER)
    pid = device["device"]["instances"][0]["vm_pid"]
    owner = host.box.run("stat", "-c", "%u", f"/proc/{pid}").stdout.strip()
    assert owner == str(UID)

    # Root sees it, and acts as its user; another user has no such device, by a token that is his.
    assert _names(host.call("Devices/List")) == _names(host.call("Devices/List", user="root")) == ["phone"]
    theirs = host.token("--user", _OTHER, "--role", "admin")
    methods = "Devices/Get", "Devices/Stop", "Devices/Restart", "Devices/Logs", "Control/Suspend"
    asked = [(method, {"target" if "Control" in method else "name": "phone"}) for method in methods]
    listed, *refused = host.remote(theirs, ("Devices/List", {}), *asked)
    assert _names(listed) == []
    assert [(answer[-1]["status"], answer[-1]["error"]["code"]) for answer in refused] == [
        ("NOT_FOUND", "no-such-device")
    ] * len(methods)
    # He may not even connect to the socket: the kernel keeps him out, who is not in the group.
    python = host.box.cfctl_argv()[0]
    done = host.box.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", _CONNECT)
    assert done.stdout.strip() == "PermissionError"
    # A token for other names of the user's own.
    other = host.token("--user", USER, "--role", "admin", "--device", "farm-*")
    stop, launch = host.remote(other, ("Devices/Stop", {"name": "phone"}), ("Devices/Launch", {"name": "tablet"}))
    assert (stop[-1]["status"], launch[-1]["status"]) == ("NOT_FOUND", "PERMISSION_DENIED")

    # A viewer looks.
    viewer = host.token("--role", "viewer", user=USER)
    asked = [("Devices/Get", {"name": "phone/1"}), ("Devices/Logs", {"name": "phone"})]
    got, logs, stop = host.remote(viewer, *asked, ("Devices/Stop", {"name": "phone"}))
    assert got[0]["instances"][0]["vm_pid"] == pid
    assert "VIRTUAL_DEVICE_BOOT_COMPLETED" in [answer.get("line") for answer in logs]
    assert stop[-1]["status"] == "PERMISSION_DENIED"

    *events, device, ended = host.call("Devices/Stop", {"name": "phone"}, user="root")
    assert ended == {"status": "OK"}
    assert device["device"]["state"] == "stopped"
    log = [json.loads(line) for line in host.box.run("cat", "/var/lib/cfctl/relay/audit.log").stdout.splitlines()]
    actions = [(line["user"], line["method"].rpartition("/")[2], line["device"], line["result"]) for line in log]
    assert (USER, "Launch", "phone", "ok") in actions
    assert (_OTHER, "Restart", "phone", "no-such-device") in actions
    assert (USER, "Stop", "phone", "not-allowed") in actions
    assert ("root", "Stop", "phone", "ok") in actions
    assert not any(secret in json.dumps(log) for secret in (theirs, other, viewer))


_CONNECT = """
import socket
try:
    socket.socket(socket.AF_UNIX).connect("/run/cfctl/relay.sock")
except OSError as error:
    print(type(error).__name__)
"""


def test_what_a_launch_from_elsewhere_may_ask_for(host: Host, tmp_path: Path) -> None:
    package = host.package(tmp_path)
    secret = host.token("--user", USER, "--role", "admin")
    # A package in /tmp, whoever has put it there: the name "tmp" must not mean it, wherever the relay has its feet.
    generations.write(tmp_path / "planted", Generation.FORWARDING)
    shutil.copytree(tmp_path / "planted", f"/proc/{host.box.pid}/root/tmp", symlinks=True, dirs_exist_ok=True)
    assert host.box.run("test", "-x", "/tmp/bin/launch_cvd").returncode == 0
    wrong: list[dict[str, Any]] = [
        {"host_package": "/tmp/package"},
        {"host_package": "../tmp"},
        {"host_package": "tmp"},
        {"flags": ["--extra_kernel_cmdline=init=/bin/sh"]},
        {"flags": ["--vm_manager=qemu_cli", "--qemu_binary_dir=/tmp"]},
        {"flags": ["-x_res=5"]},
        {"flags": ["--x_res=5 --daemon"]},
        {"gpu": "--force"},
        {"name": "--force"},
    ]
    refused = host.remote(secret, *(("Devices/Launch", {"name": "phone", **asked}) for asked in wrong))
    assert [(asked, answer[-1]["status"]) for asked, answer in zip(wrong, refused, strict=True)] == [
        (asked, "INVALID_ARGUMENT") for asked in wrong
    ]
    assert host.box.json("ps")["devices"] == []
    flags = {"name": "phone", "host_package": package, "flags": ["--x_res=720"], "no_wait": True}
    ((*_, device, ended),) = host.remote(secret, ("Devices/Launch", flags))
    assert ended == {"status": "OK"}
    assert device["device"]["owner"] == USER
    roots = host.token("--role", "admin")
    ((ended,),) = host.remote(roots, ("Devices/Launch", {"name": "tablet", "host_package": package}))
    assert (ended["status"], ended["error"]["brief"]) == (
        "PERMISSION_DENIED",
        "a launch from elsewhere never runs as root",
    )


def test_a_launch_that_is_cancelled_is_rolled_back(host: Host, tmp_path: Path) -> None:
    request = {"name": "phone", "host_package": host.hanging(tmp_path)}
    *events, ended = host.call("Devices/Launch", request, "--until", '"phase": "kernel"')
    assert ended["status"] == "CANCELLED"
    assert any("phase" in event for event in events)

    def gone() -> bool:
        devices = host.box.json("ps", user=USER)["devices"]
        return all(device["state"] in ("stopped", "failed") for device in devices) and locks(host.box) <= {"N"}

    wait(gone, "the launch to be rolled back")
    wait(lambda: not [p for p in host.box.processes().values() if "run_cvd" in p or "launch" in p], "its end")


def test_a_watch_goes_on_while_a_device_is_booted_again(host: Host, tmp_path: Path) -> None:
    package = host.package(tmp_path)
    host.call("Devices/Launch", {"name": "phone", "host_package": package})
    argv = [*host.box.cfctl_argv()[:1], "-m", "tests.relay.call", "Devices/Watch", "{}"]
    with host.box.start(*argv, user=USER, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        try:
            first = _changed(watching.stdout)
            assert first["state"] == "running"
            *events, ended = host.call("Devices/Restart", {"name": "phone"})
            assert ended == {"status": "OK"}
            assert any("phase" in event for event in events)
            then = _changed(watching.stdout)
            while then["state"] != "running":
                then = _changed(watching.stdout)
            assert then["instances"][0]["vm_pid"] != first["instances"][0]["vm_pid"]
            host.box.cfctl("rm", "--force", "phone", user=USER)
            for line in watching.stdout:
                if json.loads(line) == {"removed": "phone"}:
                    break
        finally:
            host.box.run("pkill", "-f", "Devices/Watch", check=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                watching.wait(10)


def _changed(stream: Any) -> dict[str, Any]:
    """Return the next device that has changed."""
    for line in stream:
        found: dict[str, Any] = json.loads(line)
        if "changed" in found:
            return found["changed"]  # type: ignore[no-any-return]
    raise AssertionError("the watch has ended")


def test_tokens_of_an_ordinary_user(host: Host) -> None:
    own = host.token("--role", "operator", "--ttl", "1h", user=USER)
    listed = host.box.json("relay", "token", "list", user=USER)["tokens"]
    assert [(token["id"], token["user"], token["role"]) for token in listed] == [
        (own.split("_")[1], USER, "operator")
    ]
    roots = host.token()
    assert len(host.box.json("relay", "token", "list")["tokens"]) == 2
    refused = host.box.cfctl("relay", "token", "create", "--user", "root", user=USER, check=False)
    assert (refused.returncode, "only root has tokens made for root" in refused.stderr) == (1, True)
    foreign = host.box.cfctl("relay", "token", "revoke", roots.split("_")[1], user=USER, check=False)
    assert foreign.returncode == 2
    host.box.cfctl("relay", "token", "revoke", own.split("_")[1], user=USER)
    ((ended,),) = host.remote(own, ("Devices/List", {}))
    assert ended["status"] == "UNAUTHENTICATED"
    status = host.box.json("relay", "status", user=USER)
    assert [listener["what"] for listener in status["listeners"]] == ["unix", "grpc"]
