"""The pump between two sockets: every byte, in order, at the pace of whoever reads; half closes; whoever is gone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfctl.wire import pump
from cfctl.wire.pump import Carried

#: Nobody waits so long: a test that needs it has hung.
PATIENCE = 60.0


def tcp() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    return client, peer


FAMILIES = {"tcp": tcp, "unix": socket.socketpair}


@contextlib.contextmanager
def pumped(
    left: str, right: str, *, blocking: bool = False, linger: float = PATIENCE
) -> Iterator[tuple[socket.socket, socket.socket, list[Carried]]]:
    """Give the outer ends of two connections that a pump joins in a thread, and what it returned."""
    outer_left, inner_left = FAMILIES[left]()
    outer_right, inner_right = FAMILIES[right]()
    results: list[Carried] = []

    def run() -> None:
        if blocking:
            results.append(pump.join_blocking(inner_left, inner_right, linger=linger))
        else:
            results.append(asyncio.run(pump.join(inner_left, inner_right, linger=linger)))
        inner_left.close()
        inner_right.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    for end in (outer_left, outer_right):
        end.settimeout(PATIENCE)
    try:
        yield outer_left, outer_right, results
    finally:
        outer_left.close()
        outer_right.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def send_and_finish(end: socket.socket, pieces: list[bytes]) -> threading.Thread:
    """Send pieces in a thread, then finish."""

    def run() -> None:
        for piece in pieces:
            end.sendall(piece)
        end.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def everything(end: socket.socket, sizes: Iterator[int] | None = None) -> bytes:
    """Read to the end, in pieces of the sizes given."""
    got = bytearray()
    while data := end.recv(next(sizes, 1 << 16) if sizes else 1 << 16):
        got += data
    return bytes(got)


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


both_kinds = pytest.mark.parametrize("blocking", [False, True], ids=["async", "threads"])

#: Around the sizes at which the pump does something else, and ordinary ones.
SIZES = st.one_of(
    st.integers(1, 200),
    st.sampled_from([(1 << power) + off for power in (12, 14, 16, 18, 20) for off in (-1, 0, 1)]),
)


@both_kinds
@given(
    families=st.tuples(st.sampled_from(sorted(FAMILIES)), st.sampled_from(sorted(FAMILIES))),
    there=st.lists(SIZES, max_size=8),
    back=st.lists(SIZES, max_size=8),
    reads=st.lists(st.integers(1, 1 << 17), max_size=20),
    answers_last=st.booleans(),
)
@settings(max_examples=40)
def test_every_byte_arrives_in_order_whatever_the_sizes_and_who_finishes_first(
    blocking: bool,
    families: tuple[str, str],
    there: list[int],
    back: list[int],
    reads: list[int],
    answers_last: bool,
) -> None:
    forth = [content(index, size) for index, size in enumerate(there)]
    answer = [content(100 + index, size) for index, size in enumerate(back)]
    with pumped(*families, blocking=blocking) as (left, right, results):
        threads = [send_and_finish(left, forth)]
        if not answers_last:
            threads.append(send_and_finish(right, answer))
        assert everything(right, iter(reads)) == b"".join(forth)
        if answers_last:
            # The left has finished long ago, and still gets its answer.
            threads.append(send_and_finish(right, answer))
        assert everything(left, iter(reads)) == b"".join(answer)
        for thread in threads:
            thread.join(PATIENCE)
    assert results == [Carried(sum(there), sum(back))]


@both_kinds
def test_questions_and_answers_that_change_in_size(blocking: bool) -> None:
    with pumped("tcp", "tcp", blocking=blocking) as (left, right, _):
        for size in (1, 100, 1 << 14, 3, (1 << 14) + 1, 1 << 16, 7, 1 << 13):
            for source, target in ((left, right), (right, left)):
                data = content(size, size)
                source.sendall(data)
                got = b""
                while len(got) < size:
                    got += target.recv(size - len(got))
                assert got == data


@both_kinds
def test_a_reader_that_does_not_read_holds_up_the_writer_and_no_memory_fills(blocking: bool) -> None:
    with pumped("unix", "unix", blocking=blocking) as (left, right, _):
        left.setblocking(False)
        piece = bytes(1 << 16)
        sent = 0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        quiet = 0
        while quiet < 20:
            try:
                sent += left.send(piece)
                quiet = 0
            except BlockingIOError:
                quiet += 1
                threading.Event().wait(0.02)
        assert sent < 8 << 20, "the kernel's buffers, and not a byte of ours"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10
        left.settimeout(PATIENCE)
        thread = send_and_finish(left, [])
        assert len(everything(right)) == sent
        thread.join(PATIENCE)


@both_kinds
def test_small_pieces_that_the_target_has_only_some_room_for(blocking: bool) -> None:
    """Each is sent in parts: what did not fit goes first when there is room again."""
    outer_left, inner_left = socket.socketpair()
    outer_right, inner_right = socket.socketpair()
    # The least that the kernel gives (socket(7)).
    inner_right.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    pieces = [content(number, 10_000) for number in range(12)]
    with outer_left, inner_left, outer_right, inner_right:
        if blocking:
            pumping = threading.Thread(target=pump.join_blocking, args=(inner_left, inner_right), daemon=True)
        else:
            pumping = threading.Thread(target=lambda: asyncio.run(pump.join(inner_left, inner_right)), daemon=True)
        pumping.start()
        outer_right.settimeout(PATIENCE)
        got = b""
        for piece in pieces:
            outer_left.sendall(piece)
            # Some is read, never all: there is always a rest.
            got += outer_right.recv(3000)
        outer_left.shutdown(socket.SHUT_WR)
        got += everything(outer_right)
        outer_right.shutdown(socket.SHUT_WR)
        pumping.join(PATIENCE)
    assert got == b"".join(pieces)


@both_kinds
def test_both_write_all_they_have_before_they_read(blocking: bool) -> None:
    """Nobody waits for the other in a circle: each direction has its own pace."""
    with pumped("tcp", "tcp", blocking=blocking) as (left, right, results):
        data = {left: content(1, 8 << 20), right: content(2, 8 << 20)}
        writers = [send_and_finish(end, [data[end]]) for end in (left, right)]
        assert hashlib.sha256(everything(left)).digest() == hashlib.sha256(data[right]).digest()
        assert hashlib.sha256(everything(right)).digest() == hashlib.sha256(data[left]).digest()
        for writer in writers:
            writer.join(PATIENCE)
    assert results == [Carried(8 << 20, 8 << 20)]


@both_kinds
def test_an_end_that_is_gone_ends_both(blocking: bool) -> None:
    with pumped("tcp", "tcp", blocking=blocking) as (left, right, results):
        # A reset, as a killed program with unread bytes leaves it (SO_LINGER 0).
        right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        right.close()
        assert left.recv(1) == b""
    assert isinstance(results[0].broken, ConnectionError)


@both_kinds
def test_a_half_open_connection_is_not_kept_for_ever(blocking: bool) -> None:
    with pumped("tcp", "tcp", blocking=blocking, linger=0.2) as (left, right, results):
        left.shutdown(socket.SHUT_WR)
        assert right.recv(1) == b""
        # The right says nothing, and does not finish either.
        assert left.recv(1) == b""
    assert str(results[0].broken) == "one end had finished, and the other was silent for 0.2 s"


def test_whole_connections_may_be_silent() -> None:
    with pumped("tcp", "tcp", linger=0.05) as (left, right, results):
        threading.Event().wait(0.3)
        left.sendall(b"still here")
        assert right.recv(100) == b"still here"
        assert results == []


def test_a_caller_that_cancels_has_its_sockets_and_nothing_is_left() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    async def run() -> None:
        outer_left, inner_left = tcp()
        outer_right, inner_right = tcp()
        with outer_left, outer_right, inner_left, inner_right:
            task = asyncio.create_task(pump.join(inner_left, inner_right))
            sending = asyncio.ensure_future(asyncio.to_thread(outer_left.sendall, bytes(8 << 20)))
            # Much has gone by, and the rest fills all buffers.
            await asyncio.to_thread(lambda: [outer_right.recv(1 << 16) for _ in range(32)])
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert inner_left.fileno() >= 0
            loop = asyncio.get_running_loop()
            assert not loop.remove_reader(inner_left)
            assert not loop.remove_reader(inner_right)
            inner_left.close()
            with contextlib.suppress(OSError):
                await sending

    asyncio.run(run())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
