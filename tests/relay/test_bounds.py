"""What is kept for viewers and streamers has an end, however much they say."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest

from cfctl.relay.media.hands import Hands
from cfctl.relay.media.photo import Photos
from cfctl.relay.media.upstream import Upstream
from cfctl.relay.records import Records
from cfctl.relay.web.sessions import Polled
from cfctl.wire import webrtc_channels as channels
from cfctl.wire.webrtc_messages import LONGEST_RECORD, MalformedMessage
from tests.relay.relays import PATIENCE_S


def test_a_photograph_has_so_many_pieces() -> None:
    photos = Photos()

    def begin() -> None:
        for _ in range(10_000):
            photos.take(1, b"")

    with pytest.raises(MalformedMessage, match="4096 pieces"):
        begin()


def test_a_photograph_waits_as_a_whole_until_its_channel_is_open() -> None:
    class Nobody:
        def say(self, payload: bytes) -> None:
            """Hear nothing."""

        def leave(self) -> None:
            """Be gone."""

    async def send() -> list[bool]:
        upstream = Upstream(lambda *_: Nobody(), [], cast("Any", None), media=False)
        try:
            # 5 MB in pieces of 16 KiB.
            sent = [upstream.send(channels.CAMERA, bytes(16 << 10)) for _ in range(320)]
            assert not all(upstream.send(channels.CAMERA, bytes(16 << 10)) for _ in range(10_000))
            return sent
        finally:
            await upstream.close()

    assert all(asyncio.run(send()))


def test_nobody_holds_down_more_than_a_keyboard_has() -> None:
    hands = Hands("one")
    hands.enter(1, may_control=True)
    assert hands.controls(1)
    keys = [channels.Keyboard(f"Key{number}", "keydown") for number in range(1000)]
    told = [key for key in keys if hands.input(1, key)]
    assert told == keys[:64]
    # One that is held repeats, and makes room when it is let go of.
    assert hands.input(1, keys[0])
    assert hands.input(1, channels.Keyboard("Key0", "keyup"))
    assert hands.input(1, keys[999])
    presses = [hands.press(1, channels.Press(f"button{number}", "down")) for number in range(1000)]
    assert presses.count(True) == 64
    inputs, released = hands.leave(1)
    assert (len(inputs), len(released)) == (64, 64)


def test_where_all_control_nobody_lifts_anothers_fingers() -> None:
    hands = Hands("shared")
    for viewer in (1, 2):
        hands.enter(viewer, may_control=True)
    hands.take(1)
    hands.input(1, channels.Keyboard("KeyA", "keydown"))
    assert hands.take(2) == ([], [])


def test_what_a_polled_client_is_told_is_kept_by_its_size_too() -> None:
    polled = Polled("name", cast("Any", None), cast("Any", None))
    for number in range(100):
        polled.told(b'"%s%02d"' % (200_000 * b"x", number))
    kept = [bytes(one.payload) for one in polled.messages(0, None)]
    assert sum(map(len, kept)) <= 4 << 20
    assert kept[-1].endswith(b'99"')
    # Each still has its number.
    (last,) = polled.messages(99, None)
    assert bytes(last.payload) == kept[-1]


def test_a_streamer_that_reads_nothing_is_dropped_by_what_waits_for_it() -> None:
    async def pour() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            theirs.settimeout(PATIENCE_S)
            records = Records(ours)
            sent = 0
            while await asyncio.sleep(0, records._writer.done()) is False:
                records.send(bytes(LONGEST_RECORD))
                sent += 1
                assert sent < 100
            await records.finish()
            while theirs.recv(LONGEST_RECORD):
                pass

    asyncio.run(asyncio.wait_for(pour(), PATIENCE_S))
