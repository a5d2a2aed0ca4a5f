"""Where tunnels lead: by a device's number and never by what its record says, and how they hear that it is gone."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from cfctl.docker import names
from cfctl.errors import CfctlError, NoSuchDevice, NotRunning, RelayBusy
from cfctl.instance import Instance
from cfctl.relay import caller as callers
from cfctl.relay import people, sit, verbs
from cfctl.relay.lists import Found, Lists
from cfctl.relay.ways import Ways
from cfctl.remote import loopback
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

    def __init__(self, *looks: dict[str, Any] | None, actor: people.User | None = None) -> None:
        self._looks = looks
        self._actor = actor or people.by_uid(os.geteuid())

    async def find(self, caller: object, target: str) -> Found:
        first = self._looks[0]
        if first is None or target.partition("/")[0] != first["name"]:
            raise NoSuchDevice(target, [])
        return Found(first, self._actor, "phone", None)

    async def follow(self, caller: object) -> AsyncIterator[list[dict[str, Any]]]:
        for look in self._looks:
            yield [look] if look else []
        await asyncio.Event().wait()


async def way(*looks: dict[str, Any] | None, service: Any = ADB, actor: people.User | None = None) -> Any:
    callers.set_current(cast("Any", None), callers.About())
    return await Ways(cast("Lists", Fake(*looks, actor=actor)), Path("/"))("phone", service)


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


def boxed(adb: str | None) -> dict[str, Any]:
    where = {"runtime": "docker", "container": "box", "engine": "ssh://rack"}
    return device(**where, instance={"adb": adb, "vm_pid": None})


@pytest.mark.parametrize(("published", "address"), [("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.1")])
def test_what_a_container_has_published_is_found_where_it_is(published: str, address: str) -> None:
    async def run() -> None:
        with socket.create_server((address, 0)) as listener:
            port = listener.getsockname()[1]
            with await (await way(boxed(f"{published}:{port}"))).connect() as end:
                assert end.getpeername() == (address, port)

    asyncio.run(run())


def test_a_record_leads_to_no_other_machine() -> None:
    async def run() -> None:
        (await (await way(boxed("192.0.2.1:22"))).connect()).close()

    with pytest.raises(OSError, match="assign requested address"):
        asyncio.run(run())


@pytest.mark.parametrize("adb", ["localhost:22", "slow.example:5555", "127.0.0.1:adb", "::1:22", ""])
def test_a_record_with_no_address_in_it(adb: str) -> None:
    """A name would be looked up, and everybody would wait meanwhile."""

    async def run() -> None:
        (await (await way(boxed(adb))).connect()).close()

    with pytest.raises(NotRunning, match="no adb that can be reached"):
        asyncio.run(run())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make somebody else's socket")
def test_the_connection_is_the_devices_users_own() -> None:
    """A port that lets in its own user alone must not be opened by a relay that is root's."""

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            found = await way(boxed(f"127.0.0.1:{listener.getsockname()[1]}"), actor=people.by_name("nobody"))
            with await found.connect(), listener.accept()[0] as accepted:
                assert loopback.owner(accepted) == people.by_name("nobody").uid

    asyncio.run(run())


@pytest.mark.parametrize("service", [sit.CONSOLE, sit.ADB])
def test_what_is_not_published_is_reached_from_inside(service: str) -> None:
    found = Found(boxed(None), people.by_uid(0), "phone", 2)
    assert verbs.sitting(found, service) == [
        *("cfctl", "docker", "login", "--exec", "--engine=ssh://rack", "box", "--"),
        *(names.PYTHON, "-P", "-m", "cfctl.relay.sit", service, "phone/2"),
    ]


def test_a_container_is_asked_on_its_own_engine() -> None:
    found = Found(boxed(None), people.by_uid(0), "phone", None)
    assert verbs.stop(found) == ["docker", "stop", "--engine=ssh://rack", "box"]
    assert verbs.control(found, "control", ["vcpus"])[3:6] == ["--engine=ssh://rack", "box", "--"]


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


def test_the_programs_of_one_user_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for what in ("STATE", "CONFIG", "RUNTIME"):
        monkeypatch.setenv(f"CFCTL_PATHS_{what}", str(tmp_path))
    monkeypatch.setattr("cfctl.relay.ways.MOST_SEATS", 1)

    async def run() -> None:
        callers.set_current(cast("Any", None), callers.About())
        ways = Ways(cast("Lists", Fake(device())), tmp_path)
        first = asyncio.create_task((await ways("phone", CONSOLE)).connect())
        await asyncio.sleep(0)
        with pytest.raises(RelayBusy, match="1 programs that sit"):
            await (await ways("phone", CONSOLE)).connect()
        with pytest.raises(CfctlError, match="there is no device"):
            await first
        await ways.settle()
        # Its place is free again.
        with pytest.raises(CfctlError, match="there is no device"):
            await (await ways("phone", CONSOLE)).connect()
        await ways.settle()

    asyncio.run(run())
