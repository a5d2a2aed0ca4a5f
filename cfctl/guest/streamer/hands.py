"""Input for the VM, by a monitor of QEMU's that is there for nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cfctl.control import qmp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cfctl.guest.streamer.gestures import Event

#: Nobody types so fast that this fills while QEMU takes what is there.
_LONGEST_QUEUE = 1000

#: The monitor is let go when nothing was felt for so long.
_IDLE_S = 30.0


class Hands:
    """Gives input to the VM, in the order in which it came.

    :param monitor: a socket of QEMU's that nobody else uses.
    :param say: told what QEMU does not take.
    """

    def __init__(self, monitor: Path, say: Callable[[str], None]) -> None:
        self._monitor = monitor
        self._say = say
        self._queue: asyncio.Queue[list[Event]] = asyncio.Queue(_LONGEST_QUEUE)

    def do(self, events: list[Event]) -> None:
        """Have the VM feel events; without a VM, or with one that takes none, they are lost."""
        if events and not self._queue.full():
            self._queue.put_nowait(events)

    async def run(self) -> None:
        """Give what comes until cancelled; never ends by itself."""
        while True:
            events = await self._queue.get()
            try:
                async with qmp.session(self._monitor, "input-send-event", patience=None) as talk:
                    while True:
                        await self._give(talk, events)
                        try:
                            async with asyncio.timeout(_IDLE_S):
                                events = await self._queue.get()
                        except TimeoutError:
                            break
            except qmp.QmpFailed as error:
                # The VM is being started again; what was meant for the one before is not for it.
                self._say(f"input is lost: {error.details or error.brief}")
                while not self._queue.empty():
                    self._queue.get_nowait()

    async def _give(self, talk: qmp.Session, events: list[Event]) -> None:
        try:
            async with asyncio.timeout(qmp.PATIENCE_S):
                await talk.request("input-send-event", {"events": events})
        except qmp.QmpRefused as error:
            self._say(f"QEMU does not take {events}: {error.said}")
