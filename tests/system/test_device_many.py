"""Many devices at once on one host."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.system.sandbox import Sandbox

COUNT = 10


def test_ten_launches_at_once(sandbox: Sandbox, host_package: Path) -> None:
    """Each gets a number of its own and boots; one stop ends all of them."""
    sandbox.cfctl("host", "setup", "--instances", str(COUNT))
    names = [f"d{number}" for number in range(COUNT)]

    def launch(name: str) -> int:
        done = sandbox.cfctl("launch", name, "--timeout", "500", user="tester", check=False, timeout=600)
        return done.returncode

    with ThreadPoolExecutor(COUNT) as pool:
        assert list(pool.map(launch, names)) == [0] * COUNT
    devices = sandbox.json("ps", user="tester")["devices"]
    assert {device["state"] for device in devices} == {"running"}
    assert {device["instances"][0]["number"] for device in devices} == set(range(1, COUNT + 1))
    sandbox.cfctl("stop", *names, user="tester", timeout=600)
    assert [line for line in sandbox.processes().values() if "qemu" in line] == []
