"""The extended half of the launcher monitor's protocol, against a server that says anything."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfctl.control import launcher_actions, sync
from cfctl.control.launcher_monitor import MonitorRefused
from cfctl.errors import CfctlError, DeadlinePassed
from cfctl.guest import monitor

Call = Callable[[Path], Coroutine[Any, Any, Any]]


@contextlib.contextmanager
def server(answer: bytes, *, stays: bool = False) -> Iterator[tuple[Path, list[bytes]]]:
    """Serve one client: read what it sends, answer, and close or stay silent."""
    got: list[bytes] = []
    release = threading.Event()
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = Path(directory) / "s"
        listener.bind(str(path))
        listener.listen(4)

        def run() -> None:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                got.append(client.recv(4096))
                client.sendall(answer)
                if stays:
                    release.wait(10)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield path, got
        finally:
            release.set()
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            thread.join()


def ask(action: launcher_actions.Extended) -> Call:
    return lambda path: launcher_actions.ask(path, action, seconds=30)


def powerwash(path: Path) -> Coroutine[Any, Any, int]:
    return launcher_actions.powerwash(path, down=5, up=5)


@pytest.mark.parametrize(
    ("action", "frame"),
    [
        # Recorded from upstream's tools (launcher.md section 5).
        (launcher_actions.SUSPEND, "41 02000000 2a00"),
        (launcher_actions.screenshot(0, Path("/tmp/x.png")), "41 0e000000 520c 120a2f746d702f782e706e67"),
        # Constructed from the same description.
        (launcher_actions.RESUME, "41 02000000 3200"),
        (launcher_actions.START_RECORDING, "41 02000000 3a00"),
        (launcher_actions.STOP_RECORDING, "41 02000000 4200"),
        (launcher_actions.screenshot(1, Path("/x")), "41 08000000 5206 0801 12022f78"),
    ],
)
def test_frames(action: launcher_actions.Extended, frame: str) -> None:
    with server(b"S") as (path, got):
        sync.run(ask(action)(path))
    assert got == [bytes.fromhex(frame)]


def test_a_long_path_is_understood_by_our_own_server() -> None:
    path = Path("/" + "x" * 300 + ".png")
    wanted = monitor.parse(launcher_actions.screenshot(300, path).message)
    assert wanted == monitor.Request(monitor.Extended.SCREENSHOT, 300, str(path))


@pytest.mark.parametrize("answer", [b"E", b"U", b"", b"\0"])
@pytest.mark.parametrize("call", [ask(launcher_actions.SUSPEND), powerwash])
def test_anything_but_success_is_a_refusal(call: Call, answer: bytes) -> None:
    with server(answer) as (path, _), pytest.raises(MonitorRefused, match="run_cvd answered"):
        sync.run(call(path))


@pytest.mark.parametrize(("raw", "code"), [(b"\0\0\0\0", 0), (b"\x0b\0\0\0", 11), (b"\xff\xff\xff\xff", -1)])
def test_powerwash_ends_with_a_boot(raw: bytes, code: int) -> None:
    with server(b"S" + raw) as (path, got):
        assert sync.run(powerwash(path)) == code
    assert got == [b"P"]


def test_a_device_that_does_not_come_back() -> None:
    with server(b"S\0\0") as (path, _), pytest.raises(MonitorRefused, match="went away during POWERWASH"):
        sync.run(powerwash(path))


def test_silence_ends_with_the_deadline() -> None:
    with server(b"", stays=True) as (path, _), pytest.raises(DeadlinePassed, match="did not answer SUSPEND"):
        sync.run(launcher_actions.ask(path, launcher_actions.SUSPEND, seconds=0.1))
    with server(b"S", stays=True) as (path, _), pytest.raises(DeadlinePassed, match=r"POWERWASH within 0\.1 s"):
        sync.run(launcher_actions.powerwash(path, down=5, up=0.1))


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(MonitorRefused, match="nobody listens"):
        sync.run(ask(launcher_actions.RESUME)(tmp_path / "gone"))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=12), st.booleans())
def test_whatever_it_says_is_an_answer_or_an_error(answer: bytes, wash: bool) -> None:
    call = powerwash if wash else ask(launcher_actions.SUSPEND)
    with server(answer) as (path, _):
        try:
            sync.run(call(path))
        except CfctlError:
            assert answer[:1] != b"S" or (wash and len(answer) < 5)
        else:
            assert answer[:1] == b"S"
            assert not wash or len(answer) >= 5
