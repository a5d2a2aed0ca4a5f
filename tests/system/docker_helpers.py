"""What the tests of containers share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.schemas import conforms
from tests.system.dockerd import Engine
from tests.system.sandbox import Sandbox


def fails(host: Sandbox, status: int, *args: str, **kwargs: Any) -> dict[str, Any]:
    """Run ``cfctl docker ARGS``, which must fail; return the error."""
    done = host.cfctl("docker", *args, "--json", check=False, **kwargs)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    document = json.loads(done.stdout)
    conforms(document, "error")
    error: dict[str, Any] = document["error"]
    return error


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for something that comes by itself."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.2)


def boot(host: Sandbox, name: str, *args: str) -> str:
    """Boot a container's device and publish its ADB; return where it is published."""
    device = host.json("docker", "start", name, *args, timeout=300)
    conforms(device, "device")
    assert device["state"] == "running"
    document = host.json("docker", "publish", name)
    conforms(document, "ports")
    return str(document["published"][0]["address"])


def ask_adb(host: Sandbox, address: str, *command: str) -> str:
    """Ask a device over ADB, with a server that ends with the question."""
    try:
        host.run("adb", "connect", address)
        return host.run("adb", "-s", address, "shell", *command).stdout.strip()
    finally:
        host.run("adb", "kill-server", check=False)


def ssh_banner(host: Sandbox, port: int) -> str:
    """Return the first line that a published port says; empty if it says nothing."""
    code = (
        f"import socket\ns = socket.create_connection(('127.0.0.1', {port}), 20)\ns.settimeout(20)\n"
        "try: print(s.recv(99).decode().strip())\nexcept OSError: pass"
    )
    return host.run("python3", "-c", code, check=False).stdout.strip()


def programs(host: Sandbox) -> list[str]:
    """Return what runs in the sandbox, by program."""
    return sorted(args.split()[0] for args in host.processes().values())


def leaves_nothing(engine: Engine, before: list[str]) -> None:
    """Nothing of any container is left: on the engine, in processes, in files, in locks."""
    assert engine.left() == {"containers": [], "volumes": [], "networks": []}
    host = engine.box
    wait_until(lambda: not any("cfctl.docker" in args for args in host.processes().values()), "no process of ours")
    assert programs(host) == before
    files = host.run("find", "/var/lib/cfctl", "/run/cfctl", "-type", "f", "-o", "-type", "s", check=False).stdout
    assert [name for name in files.split() if "/docker" in name] == []
    assert host.run("sh", "-c", "ls -A /run/cfctl/docker 2>/dev/null || true").stdout == ""
    # Free means: nobody holds it, and its first byte is not I (launcher.md section 16).
    for lock in host.run("sh", "-c", "ls /var/tmp/cvd/lock/*.lock || true").stdout.split():
        assert not host.run("cat", lock).stdout.startswith("I")
        host.run("flock", "--nonblock", lock, "true")
