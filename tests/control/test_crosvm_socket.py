"""Packets to crosvm and back: never joined, never split, never left waiting."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfctl.control import crosvm_socket
from cfctl.control.faults import VmBusy, VmRefused, VmSilent, VmUnreachable
from cfctl.errors import UsageError

#: Far more than anything here takes.
PATIENCE_S = 20.0

#: What a server does with a packet: it answers with these, one after the other; None ends the connection.
Answers = Callable[[bytes], list[bytes | None]]


@contextlib.contextmanager
def server(answers: Answers, *, path: Path | None = None, backlog: int = 128) -> Iterator[tuple[Path, list[bytes]]]:
    """Serve on a socket with a thread for each client; give its path, and what has arrived."""
    with contextlib.ExitStack() as stack:
        if path is None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s"))) / "c.sock"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        # From its own directory: the whole path may be too long for an address.
        directory = os.open(path.parent, os.O_PATH)
        stack.callback(os.close, directory)
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        listener.listen(backlog)
        got: list[bytes] = []
        threads: list[threading.Thread] = []

        def one(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                while packet := client.recv(1 << 20):
                    got.append(packet)
                    for answer in answers(packet):
                        if answer is None:
                            return
                        client.send(answer, socket.MSG_NOSIGNAL)
                got.append(b"")

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threads.append(threading.Thread(target=one, args=(listener.accept()[0],)))
                    threads[-1].start()

        accepting = threading.Thread(target=run)
        accepting.start()
        try:
            yield path, got
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


def ask(path: Path, packet: bytes, *, seconds: float = PATIENCE_S) -> bytes:
    return asyncio.run(crosvm_socket.exchange(path, packet, seconds=seconds))


#: Around what a page, a socket's buffer and a naive reader hold.
SIZES = st.sampled_from([1, 2, 4095, 4096, 4097, 65535, 65536, 65537, 150_000]) | st.integers(1, 100_000)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(SIZES, SIZES, st.floats(0, 0.01)), min_size=1, max_size=5), st.booleans())
def test_no_packet_is_joined_or_split(exchanges: list[tuple[int, int, float]], together: bool) -> None:
    plan = {}
    for number, (out, back, delay) in enumerate(exchanges):
        request = bytes([65 + number]) * min(out, 65536)
        plan[request] = bytes([97 + number]) * back, delay

    def answers(packet: bytes) -> list[bytes | None]:
        time.sleep(plan[packet][1])
        return [plan[packet][0]]

    async def all_of_them(path: Path) -> list[bytes]:
        asked = [crosvm_socket.exchange(path, packet, seconds=PATIENCE_S) for packet in plan]
        return list(await asyncio.gather(*asked)) if together else [await one for one in asked]

    with server(answers) as (path, got):
        assert asyncio.run(all_of_them(path)) == [answer for answer, _ in plan.values()]
    assert sorted(packet for packet in got if packet) == sorted(plan)


def test_what_comes_late_never_meets_the_next_request() -> None:
    late = threading.Event()

    def answers(packet: bytes) -> list[bytes | None]:
        if packet == b"1":
            late.wait(PATIENCE_S)
        return [b"answer to " + packet]

    with server(answers) as (path, got):
        with pytest.raises(VmSilent) as caught:
            ask(path, b"1", seconds=0.2)
        assert caught.value.exit_code == 5
        late.set()
        assert ask(path, b"2") == b"answer to 2"
    assert got.count(b"1") == 1, "it is not asked again by itself"


def test_two_answers_to_one_request_are_not_taken_for_two_requests() -> None:
    with server(lambda packet: [packet + b"!", b"and more"]) as (path, _):
        assert ask(path, b"1") == b"1!"
        assert ask(path, b"2") == b"2!"


def test_silence_ends_and_the_connection_with_it() -> None:
    with server(lambda packet: []) as (path, got):
        with pytest.raises(VmSilent):
            ask(path, b"hello", seconds=0.2)
        deadline = time.monotonic() + PATIENCE_S
        while got != [b"hello", b""]:
            assert time.monotonic() < deadline, "the connection stays open"
            time.sleep(0.01)


def test_the_end_of_a_connection_is_no_answer() -> None:
    with server(lambda packet: [None]) as (path, _), pytest.raises(VmRefused, match="without an answer"):
        ask(path, b"hello")


@pytest.mark.parametrize("size", [0, 65537])
def test_what_may_not_be_sent(size: int) -> None:
    with server(lambda packet: [packet]) as (path, got):
        with pytest.raises(UsageError):
            ask(path, b"x" * size)
        assert got == []


def test_a_full_backlog_is_busy_and_then_it_is_not() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="s") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s,
    ):
        path = Path(directory) / "c.sock"
        s.bind(str(path))
        s.listen(1)
        waiting: list[socket.socket] = []
        with contextlib.suppress(BlockingIOError):
            while len(waiting) < 10:
                client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
                waiting.append(client)
                client.connect(str(path))
        assert len(waiting) == 3, "two wait, the third is turned away"
        with pytest.raises(VmBusy):
            ask(path, b"hello", seconds=0.3)

        async def asked() -> bytes:
            task = asyncio.create_task(crosvm_socket.exchange(path, b"hello", seconds=PATIENCE_S))
            await asyncio.sleep(0.2)
            for _ in range(2):
                s.accept()[0].close()
            s.setblocking(False)
            taken, _ = await asyncio.get_running_loop().sock_accept(s)
            with taken:
                assert await asyncio.get_running_loop().sock_recv(taken, 100) == b"hello"
                await asyncio.get_running_loop().sock_sendall(taken, b"at last")
                return await task

        assert asyncio.run(asked()) == b"at last"
        for client in waiting:
            client.close()


def test_a_socket_that_goes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"

    async def asked() -> bytes:
        task = asyncio.create_task(crosvm_socket.exchange(path, b"hello", seconds=PATIENCE_S))
        await asyncio.sleep(0.2)
        with server(lambda packet: [packet + b" again"], path=path):
            return await task

    assert asyncio.run(asked()) == b"hello again"
    # A file that nobody listens on is what a crash leaves.
    with pytest.raises(VmUnreachable) as caught:
        ask(path, b"hello", seconds=0.2)
    assert caught.value.exit_code == 3


def test_what_is_no_socket_of_crosvms(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(path))
        stream.listen()
        with pytest.raises(VmUnreachable, match="no socket of crosvm's"):
            ask(path, b"hello")


def test_a_path_that_is_too_long_for_an_address(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "c.sock"
    path.parent.mkdir()
    with server(lambda packet: [packet[::-1]], path=path):
        assert ask(path, b"abc") == b"cba"


def test_descriptors_go_out_and_those_that_come_back_are_closed() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="s") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s,
    ):
        path = Path(directory) / "c.sock"
        s.bind(str(path))
        s.listen()
        inodes: list[int] = []

        def run() -> None:
            client, _ = s.accept()
            with client, Path(os.devnull).open() as null:
                packet, extra, _, _ = client.recvmsg(100, socket.CMSG_SPACE(4))
                (fd,) = array.array("i", extra[0][2])
                inodes.append(os.fstat(fd).st_ino)
                os.close(fd)
                socket.send_fds(client, [packet], [null.fileno()] * 5)

        thread = threading.Thread(target=run)
        thread.start()
        with (Path(directory) / "given").open("w") as given:
            before = len(list(Path("/proc/self/fd").iterdir()))
            answer = asyncio.run(crosvm_socket.exchange(path, b"x", seconds=PATIENCE_S, fds=[given.fileno()]))
            thread.join()
            assert (answer, inodes) == (b"x", [os.fstat(given.fileno()).st_ino])
            assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_peer_is_who_listens() -> None:
    with server(lambda packet: [packet]) as (path, _):
        assert asyncio.run(crosvm_socket.peer(path, seconds=PATIENCE_S)) == (os.getpid(), os.geteuid())
