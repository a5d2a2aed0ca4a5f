"""The display's looks at QEMU's screen; real ones are in tests/system."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from cfctl.guest.streamer.display import Display

PATIENCE_S = 60.0


class Screen:
    """Counts how often it is asked to be looked at."""

    def __init__(self) -> None:
        self.nudges = 0

    def nudge(self) -> None:
        self.nudges += 1


def test_after_input_it_looks_often_and_then_no_more(tmp_path: Path) -> None:
    async def feel() -> None:
        display, screen = Display(tmp_path / "vnc", (4, 2), lambda _: None), Screen()
        # Nobody watches: there is no screen to look at.
        display.look()
        cast("Any", display)._screen = screen
        display.look()
        display.look()
        assert screen.nudges == 1
        # What the guest does with it may be seen a good while later.
        while screen.nudges < 5:
            await asyncio.sleep(0.001)
        while display._eager is not None:
            await asyncio.sleep(0.001)
        looked = screen.nudges
        await asyncio.sleep(0.05)
        assert screen.nudges == looked

    asyncio.run(asyncio.wait_for(feel(), PATIENCE_S))
