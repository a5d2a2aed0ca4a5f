"""Where tunnels lead: by a device's number and never by what its record says, and how they hear that it is gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from cfctl.errors import CfctlError, NoSuchDevice, NotRunning, UsageError
from cfctl.instance import Instance
from cfctl.relay import caller as callers
from cfctl.relay import people
from cfctl.relay.lists import Found, Lists
from cfctl.relay.ways import Ways
from cfctl.v1 import tunnel_pb2

ADB = tunnel_pb2.TunnelTarget.SERVICE_ADB
CONSOLE = tunnel_pb2.TunnelTarget.SERVICE_CONSOLE

#: Nobody on this machine has it.
NUMBER = 127

PATIENCE = 60.0


def device(**more: Any) -> dict[str, Any]:
    instance = {"number": NUMBER, "adb": "127.0.0.1:22", "vm_pid": 100, **more.pop("instance", {})}
    return {"name": "phone", "state": "running", "owner": "root", "runtime": "host", "instances": [instance], **more}


class Fake:
    """Lists of one device, as it is at each look."""

    def __init__(self, *looks: dict[str, Any] | None) -> None:
        self._looks = looks

    async def find(self, caller: object, target: str) -> Found:
        first = self._looks[0]
        if first is None or target.partition("/")[0] != first["name"]:
            raise NoSuchDevice(target, [])
        return Found(first, people.by_uid(0), "phone", None)

    async def follow(self, caller: object) -> AsyncIterator[list[dict[str, Any]]]:
        for look in self._looks:
            yield [look] if look else []
        await asyncio.Event().wait()


async def way(*looks: dict[str, Any] | None, service: Any = ADB) -> Any:
    callers.set_current(cast("Any", None), callers.About())
    return await Ways(cast("Lists", Fake(*looks)), Path("/"))("phone", service)


def test_the_number_decides_the_port_whatever_the_record_says() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", Instance(NUMBER).adb_port)) as listener:
            listener.settimeout(PATIENCE)
            # Its record claims the port of the machine's sshd.
            with await (await way(device())).connect() as end:
                accepted, _ = listener.accept()
                with accepted:
                    assert end.getpeername()[1] == Instance(NUMBER).adb_port

    asyncio.run(run())


@pytest.mark.parametrize(
    ("state", "said"),
    [("stopped", "Boot it: cfctl restart phone"), ("suspended", "Let it go on: cfctl resume phone")],
)
def test_one_that_is_not_up(state: str, said: str) -> None:
    with pytest.raises(NotRunning, match=f"phone is {state}") as caught:
        asyncio.run(way(device(state=state)))
    assert caught.value.resolution == said


def test_in_a_container() -> None:
    boxed = device(runtime="docker", container="box", instance={"adb": None})
    with pytest.raises(UsageError, match="the ADB of phone is not published"):
        asyncio.run(_connect(boxed))
    with pytest.raises(UsageError, match="its console cannot be reached"):
        asyncio.run(way(boxed, service=CONSOLE))


async def _connect(document: dict[str, Any]) -> None:
    await (await way(document)).connect()


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        (None, "phone was removed"),
        (device(state="stopped"), "phone was stopped"),
        (device(state="stopping"), "phone was stopped"),
        (device(state="failed"), "phone is failed"),
        (device(instance={"vm_pid": 101}), "phone was booted again"),
    ],
)
def test_a_device_that_is_gone(later: dict[str, Any] | None, reason: str) -> None:
    async def run() -> str:
        # A suspended guest goes on again, and nobody knows a VM's process for a moment: both are no end.
        between = (device(state="suspended"), device(instance={"vm_pid": None}))
        found: str = await asyncio.wait_for((await way(device(), *between, later)).gone(), PATIENCE)
        return found

    assert asyncio.run(run()) == reason


def test_a_console_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that would sit there says why, and its error comes through whole."""
    for what in ("STATE", "CONFIG", "RUNTIME"):
        monkeypatch.setenv(f"CFCTL_PATHS_{what}", str(tmp_path))

    async def run() -> None:
        callers.set_current(cast("Any", None), callers.About())
        ways = Ways(cast("Lists", Fake(device())), tmp_path)
        try:
            await (await ways("phone", CONSOLE)).connect()
        finally:
            await ways.settle()

    with pytest.raises(CfctlError) as caught:
        asyncio.run(run())
    assert (caught.value.code, caught.value.exit_code) == ("no-such-device", 1)
    assert caught.value.brief == "there is no device 'phone'"
