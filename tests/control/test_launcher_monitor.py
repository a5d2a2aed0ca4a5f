from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cfctl.control import launcher_monitor, sync
from cfctl.control.launcher_monitor import Action, MonitorRefused
from cfctl.errors import DeadlinePassed

Serve = Callable[[bytes | None], tuple[Path, list[bytes]]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve one client with a fixed answer; None stays silent, empty closes."""
    servers: list[socket.socket] = []
    threads: list[threading.Thread] = []
    release = threading.Event()

    def start(answer: bytes | None) -> tuple[Path, list[bytes]]:
        path = tmp_path / "launcher_monitor.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen(4)
        servers.append(server)
        got: list[bytes] = []

        def run() -> None:
            client, _ = server.accept()
            with client:
                got.append(client.recv(1))
                if answer is None:
                    release.wait(5)
                else:
                    client.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return path, got

    yield start
    release.set()
    for thread in threads:
        thread.join()
    for server in servers:
        server.close()


def test_one_byte_each_way(serve: Serve) -> None:
    path, got = serve(b"S")
    sync.run(launcher_monitor.request(path, Action.STOP, seconds=30))
    assert got == [b"X"]


@pytest.mark.parametrize("answer", [b"E", b"", b"U", b"?"])
def test_anything_else_is_a_refusal(serve: Serve, answer: bytes) -> None:
    path, _ = serve(answer)
    with pytest.raises(MonitorRefused, match="run_cvd answered STATUS with"):
        sync.run(launcher_monitor.request(path, Action.STATUS, seconds=30))


def test_silence_ends_with_the_deadline(serve: Serve) -> None:
    path, _ = serve(None)
    with pytest.raises(DeadlinePassed, match=r"did not answer STOP within 0\.1 s"):
        sync.run(launcher_monitor.request(path, Action.STOP, seconds=0.1))


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(MonitorRefused, match="nobody listens"):
        sync.run(launcher_monitor.request(tmp_path / "gone.sock", Action.STOP, seconds=1))


def test_listening_is_seen_without_a_connection(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not launcher_monitor.listening(path), "bound is not listening"
        server.listen(1)
        assert launcher_monitor.listening(path)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert not launcher_monitor.listening(path)
