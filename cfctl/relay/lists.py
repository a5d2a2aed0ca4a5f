"""Which devices there are for a caller: what ``cfctl ps`` says as his user, asked once for all who want to know."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from cfctl.errors import CfctlError, NoSuchDevice, UsageError
from cfctl.launch import manage
from cfctl.relay import people
from cfctl.relay.shared import Shared

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cfctl.relay.caller import Caller
    from cfctl.relay.people import User
    from cfctl.relay.worker import Worker

Document = dict[str, Any]

#: How old a list may be that is shown to somebody else too.
_FRESH_S = 0.5

#: A watch that ends by itself is begun again so often in a row, after so many seconds.
_FAILURES, _AGAIN_S = 3, 1.0

#: ``cfctl ps`` takes 0.3 s with a hundred devices; a container engine that does not answer takes longer.
LIST_S = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """A device that a caller has named.

    :param document: as ``cfctl ps --json`` shows it to the caller's user.
    :param actor: the user that touches it: whose it is.
    :param name: what it is called for that user.
    :param position: of the instance that was named; None is the whole device.
    """

    document: Document
    actor: User
    name: str
    position: int | None

    @property
    def container(self) -> str | None:
        """The container that it is in."""
        return self.document.get("container")

    @property
    def engine(self) -> str | None:
        """The engine that the container is on, as ``--engine`` takes it."""
        return self.document.get("engine")

    @property
    def instance(self) -> dict[str, Any]:
        """The instance that was named; of the whole device, the first."""
        return self.instance_in(self.document)

    def instance_in(self, document: Document) -> dict[str, Any]:
        """Return the same instance in a later look at the device."""
        instance: dict[str, Any] = document["instances"][(self.position or 1) - 1]
        return instance

    @property
    def target(self) -> str:
        """What the verbs take as its name."""
        return self.name if self.position is None else f"{self.name}/{self.position}"


class Lists:
    """The devices of each user, as they were a moment ago."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._shared: Shared[list[Document]] = Shared(_FRESH_S)
        self._feeds: dict[int, Feed] = {}

    async def of(self, user: User) -> list[Document]:
        """Return the devices that there are for a user.

        :raises CfctlError: what ``cfctl ps`` says if it fails.
        """
        return await self._shared.get(user.uid, lambda: self._ask(user))

    def forget(self, user: User) -> None:
        """Ask again the next time: something was done."""
        self._shared.forget(user.uid)
        self._shared.forget(0)

    async def _ask(self, user: User) -> list[Document]:
        document = await self._worker.document(user, ["ps"], seconds=LIST_S)
        return _own(document, user)

    async def visible(self, caller: Caller) -> list[Document]:
        """Return the devices that there are for a caller."""
        return [device for device in await self.of(caller.user) if caller.sees(device["name"])]

    async def find(self, caller: Caller, target: str) -> Found:
        """Return the device, or its instance, that a caller names.

        :param target: ``NAME`` or ``NAME/2``.
        :raises NoSuchDevice: if there is none of that name for him.
        :raises UsageError: if it has fewer instances.
        """
        name, position = manage.target(target)
        devices = await self.visible(caller)
        document = next((device for device in devices if device["name"] == name), None)
        if document is None:
            raise NoSuchDevice(name, [device["name"] for device in devices])
        if position > len(document["instances"]):
            raise UsageError(f"device {name} has {len(document['instances'])} instance(s), no {position}")
        actor, theirs = _actor(caller.user, document)
        return Found(document, actor, theirs, position if "/" in target else None)

    async def follow(self, caller: Caller) -> AsyncGenerator[list[Document], None]:
        """Yield the caller's devices now, and each time they have been looked at again; only ever the newest."""
        feed = self._feeds.setdefault(caller.user.uid, Feed(self._worker, caller.user))
        seen = 0
        feed.enter()
        try:
            while True:
                seen, devices = await feed.newer(seen)
                yield [device for device in devices if caller.sees(device["name"])]
        finally:
            if feed.leave() and self._feeds.get(caller.user.uid) is feed:
                del self._feeds[caller.user.uid]


def _own(document: Document, user: User) -> list[Document]:
    """Return those of a list that are the user's own, or in the user's containers; root's are all."""
    devices: list[Document] = document.get("devices", [])
    if user.is_root:
        return devices
    return [device for device in devices if device["owner"] == user.name or device["runtime"] == "docker"]


def _actor(user: User, document: Document) -> tuple[User, str]:
    """Return who touches a device, and what it is called for that user: root touches others' devices as them."""
    if not user.is_root or document["runtime"] == "docker" or document["owner"] in ("", user.name):
        return user, document["name"]
    home = PurePath(document["home"])
    # What root calls otherwise, because a device of root's has the name, lies in a directory of its name.
    theirs = home.name if document.get("source") == "cfctl" and home.parent.name == "devices" else document["name"]
    return people.by_name(document["owner"]), theirs


class Feed:
    """One child that says again and again which devices a user has, for everybody who watches."""

    def __init__(self, worker: Worker, user: User) -> None:
        self._worker = worker
        self._user = user
        self._watchers = 0
        self._version = 0
        self._devices: list[Document] = []
        self._error: CfctlError | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def enter(self) -> None:
        """Count a watcher; the first one has the child started."""
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def leave(self) -> bool:
        """Forget a watcher; return whether it was the last one, after whom the child is ended."""
        self._watchers -= 1
        if self._watchers == 0 and self._task is not None:
            self._task.cancel()
            self._task = None
        return self._watchers == 0

    async def newer(self, seen: int) -> tuple[int, list[Document]]:
        """Wait for another look than the one that was seen; return its number, and the devices.

        :raises CfctlError: what ``cfctl ps`` says if it fails again and again.
        """
        while self._version <= seen:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        return self._version, self._devices

    async def _run(self) -> None:
        failed = 0
        while True:
            try:
                async with contextlib.aclosing(self._worker.lines(self._user, ["ps", "--watch"])) as lines:
                    async for document in lines:
                        self._devices = _own(document, self._user)
                        self._version += 1
                        failed = 0
                        self._wake()
                error = CfctlError("cfctl ps --watch has ended on the relay's host")
            except CfctlError as caught:
                error = caught
            failed += 1
            if failed >= _FAILURES:
                self._error = error
                self._wake()
                return
            await asyncio.sleep(_AGAIN_S)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
