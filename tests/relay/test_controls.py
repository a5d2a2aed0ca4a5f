"""What the service Control hands on to its children."""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

import pytest

from cfctl.errors import UsageError
from cfctl.relay import caller as callers
from cfctl.relay import people
from cfctl.relay.controls import Control
from cfctl.relay.lists import Found
from cfctl.v1 import control_pb2


class Recorder:
    """A worker that starts nothing, and lists of one device."""

    def __init__(self) -> None:
        self.argv: list[str] = []
        self.fed = b""

    async def find(self, caller: object, target: str) -> Found:
        return Found({"name": target}, people.by_uid(os.geteuid()), target, None)

    def forget(self, user: people.User) -> None:
        """Hear that something was done."""

    async def document(self, user: people.User, argv: list[str], *, fed: bytes = b"", **_: Any) -> dict[str, Any]:
        self.argv, self.fed = argv, fed
        return {"result": {"characters": len(fed)}}


def _type(text: str) -> Recorder:
    recorder = Recorder()

    async def run() -> None:
        callers.set_current(cast("Any", None), callers.About())
        control = Control(cast("Any", recorder), cast("Any", recorder))
        await control.TypeText(control_pb2.TypeTextRequest(target="phone", text=text), cast("Any", None))

    asyncio.run(run())
    return recorder


def test_a_text_stands_in_no_list_of_processes() -> None:
    recorder = _type("secret")
    assert recorder.argv == ["control", "phone", "text", "-"]
    assert recorder.fed == b"secret"


@pytest.mark.parametrize("text", ["", "é", "x" * 1001])
def test_a_text_that_cannot_be_typed_starts_nothing(text: str) -> None:
    with pytest.raises(UsageError):
        _type(text)
