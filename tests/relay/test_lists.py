"""Which devices there are for a caller, and what is asked once for many."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cfctl.errors import CfctlError, NoSuchDevice, UsageError
from cfctl.relay import lists, people
from cfctl.relay.caller import Caller
from cfctl.relay.connection import Connection
from cfctl.relay.lists import Lists
from cfctl.relay.shared import Shared
from cfctl.relay.tokens import Token

ROOT = people.by_uid(0)
OTHER = people.by_name("nobody")


def device(name: str, owner: str, **more: Any) -> dict[str, Any]:
    home = f"/home/{owner}/.local/state/cfctl/devices/{name}"
    return {
        "name": name,
        "owner": owner,
        "runtime": "host",
        "source": "cfctl",
        "home": home,
        "state": "running",
        "instances": [{"number": 1}, {"number": 2}],
        **more,
    }


class Verbs:
    """Stands for the children: what ``ps`` prints, as often as it is asked."""

    def __init__(self, *devices: dict[str, Any], fails: int = 0) -> None:
        self.devices = list(devices)
        self.asked = 0
        self.fails = fails

    async def document(self, _user: people.User, argv: list[str], **_: Any) -> dict[str, Any]:
        assert argv == ["ps"]
        self.asked += 1
        await asyncio.sleep(0)
        return {"devices": self.devices}

    async def lines(self, _user: people.User, argv: list[str]) -> AsyncIterator[dict[str, Any]]:
        assert argv == ["ps", "--watch"]
        self.asked += 1
        if self.asked <= self.fails:
            raise CfctlError("ps failed")
        while True:
            yield {"devices": self.devices}
            await asyncio.sleep(0.01)


def lists_of(verbs: Verbs) -> Lists:
    stand_in: Any = verbs
    return Lists(stand_in)


def caller(user: people.User, devices: str = "") -> Caller:
    token = Token("0", "", user.name, "admin", devices, "", "") if devices else None
    return Caller(user, Connection(1, "unix", "uid", user.uid), token)


ALL = (device("mine", "nobody"), device("roots", "root"), device("boxed", "x", runtime="docker", container="c"))


def test_a_user_has_his_own_and_those_in_his_containers_root_has_all() -> None:
    async def names(who: Caller) -> list[str]:
        return [one["name"] for one in await lists_of(Verbs(*ALL)).visible(who)]

    assert asyncio.run(names(caller(OTHER))) == ["mine", "boxed"]
    assert asyncio.run(names(caller(ROOT))) == ["mine", "roots", "boxed"]
    assert asyncio.run(names(caller(ROOT, "r*"))) == ["roots"]


def test_what_is_not_his_does_not_exist() -> None:
    found = lists_of(Verbs(*ALL))
    with pytest.raises(NoSuchDevice) as caught:
        asyncio.run(found.find(caller(OTHER), "roots"))
    assert "roots" not in (caught.value.details or "")
    with pytest.raises(NoSuchDevice):
        asyncio.run(found.find(caller(ROOT, "m*"), "roots"))


def test_root_touches_others_devices_as_them() -> None:
    theirs = device("foreign-phone", "nobody", home="/home/nobody/.local/state/cfctl/devices/phone")
    found = asyncio.run(lists_of(Verbs(theirs)).find(caller(ROOT), "foreign-phone/2"))
    assert (found.actor, found.target) == (OTHER, "phone/2")
    by_cvd = device("cvd-1", "nobody", source="cvd", home="/var/tmp/cvd/65534/1/home")
    found = asyncio.run(lists_of(Verbs(by_cvd)).find(caller(ROOT), "cvd-1"))
    assert (found.actor, found.target) == (OTHER, "cvd-1")
    found = asyncio.run(lists_of(Verbs(*ALL)).find(caller(ROOT), "roots"))
    assert (found.actor, found.target) == (ROOT, "roots")


@pytest.mark.parametrize("target", ["mine/3", "mine/0", "mine/x", "mine/"])
def test_instances_that_there_are_not(target: str) -> None:
    with pytest.raises(UsageError):
        asyncio.run(lists_of(Verbs(*ALL)).find(caller(OTHER), target))


def test_many_who_ask_at_once_cost_one_look() -> None:
    verbs = Verbs(*ALL)

    async def run() -> None:
        found = lists_of(verbs)
        await asyncio.gather(*(found.visible(caller(OTHER)) for _ in range(50)))
        assert verbs.asked == 1
        found.forget(OTHER)
        await found.visible(caller(OTHER))
        assert verbs.asked == 2

    asyncio.run(run())


def test_one_who_stops_waiting_keeps_nobody_from_the_answer() -> None:
    async def run() -> None:
        shared: Shared[str] = Shared(60)
        go = asyncio.Event()

        async def ask() -> str:
            await go.wait()
            return "answer"

        first, second = (asyncio.create_task(shared.get(1, ask)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        go.set()
        assert await second == "answer"
        assert await shared.get(1, ask) == "answer"

    asyncio.run(run())


def test_an_error_is_everybodys_and_is_asked_again() -> None:
    async def run() -> None:
        shared: Shared[str] = Shared(0)
        asked = 0

        async def ask() -> str:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            raise CfctlError("no")

        results = await asyncio.gather(*(shared.get(1, ask) for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["no"] * 3
        with pytest.raises(CfctlError):
            await shared.get(1, ask)
        assert asked == 2

    asyncio.run(run())


def test_a_watch_outlives_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "_AGAIN_S", 0)

    async def run(fails: int) -> list[str]:
        async for devices in lists_of(Verbs(*ALL, fails=fails)).follow(caller(OTHER)):
            return [one["name"] for one in devices]
        return []

    assert asyncio.run(run(2)) == ["mine", "boxed"]
    with pytest.raises(CfctlError, match="ps failed"):
        asyncio.run(run(3))


def test_the_user_that_runs_this_is_somebody() -> None:
    me = people.by_uid(os.geteuid())
    assert me.credentials is None
    assert people.by_name(me.name) == me
    with pytest.raises(UsageError, match="no user"):
        people.by_name("no-such-user")
    with pytest.raises(UsageError, match="no user"):
        people.by_uid(4_000_000_000)
