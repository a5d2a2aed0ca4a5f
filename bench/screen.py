"""What a screen costs, and how soon it is seen: the embedded guest's streamer with a viewer of ours beside it.

Time to the first frame, frames per second, click to photon (a key pressed until its letter is in a decoded frame),
and what the streamer takes of a processor: unwatched, watched while the guest's clock ticks, and with a screen of
scrolling text. Prints a table and, as the last line, JSON. Run it as root with: make bench
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av

from bench import namespace
from cfctl.guest import package
from cfctl.viewer import signalling, stream
from cfctl.wire import webrtc_channels as channels

_CFCTL = [sys.executable, "-m", "cfctl"]
_OPERATOR = signalling.Operator("http://127.0.0.1:1080")
_SOCKET = Path("/run/cuttlefish/operator")
_SECONDS = 10.0
_CLICKS = 20
_STARTS = 5

#: The first text line has the clock.
_CLOCK_ROWS = 16


def _run(*words: str) -> str:
    return subprocess.run(
        [*_CFCTL, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout


@contextlib.contextmanager
def _operator() -> Iterator[None]:
    _SOCKET.parent.mkdir(exist_ok=True)
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.screens.stock", _SOCKET, "1080"], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield
        finally:
            child.kill()


def _streamer() -> int:
    """Return the streamer's process."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text() == "webRTC\n":
                return int(entry.name)
    raise SystemExit("there is no streamer")


def _cpu(pid: int) -> float:
    """Return the seconds of a processor that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def _first_frame() -> float:
    started = time.perf_counter()
    async with stream.watching(_OPERATOR, "cvd-1") as viewer:
        async for _ in viewer.frames():
            return time.perf_counter() - started
    raise AssertionError


async def _share(pid: int) -> tuple[float, float, float]:
    """Watch for some seconds; return the streamer's share of a processor in percent, frames/s and kbit/s."""
    async with stream.watching(_OPERATOR, "cvd-1") as viewer:
        frames = viewer.frames()
        await anext(frames)
        before, count, size, started = _cpu(pid), 0, 0, time.perf_counter()
        async for data in frames:
            count, size = count + 1, size + len(data)
            if (seconds := time.perf_counter() - started) > _SECONDS:
                break
        return 100 * (_cpu(pid) - before) / seconds, count / seconds, 8 * size / seconds / 1000
    raise AssertionError


async def _clicks() -> list[float]:
    """Type letters; return the milliseconds until each changes the picture."""
    took = []
    async with stream.watching(_OPERATOR, "cvd-1") as viewer:
        decoder = av.CodecContext.create("libvpx", "r")
        assert isinstance(decoder, av.VideoCodecContext)
        await viewer.ready()
        known: bytes | None = None
        started = quiet_since = time.perf_counter()
        pressed = False
        async for packet in viewer.packets():
            for frame in decoder.decode(packet):
                plane = frame.planes[0]
                # Only what is clearly light or dark: an encoder mends its pictures.
                now = bytes(plane)[_CLOCK_ROWS * plane.line_size :].translate(_LIGHT)
                moment = time.perf_counter()
                if known is not None and now != known:
                    if pressed:
                        took.append(1000 * (moment - started))
                        pressed = False
                    quiet_since = moment
                known = now
                if not pressed and moment - quiet_since > 0.5:
                    # Not on the beat of the guest's clock, nor of the streamer's own repetitions.
                    await asyncio.sleep(0.037 * (len(took) % 7))
                    for event in ("keydown", "keyup"):
                        viewer.input.send(channels.write(channels.Keyboard("KeyM", event)))
                    pressed, started = True, time.perf_counter()
            if len(took) == _CLICKS:
                return took
    raise AssertionError


_LIGHT = bytes(value > 110 for value in range(256))


async def _measure() -> dict[str, float]:
    pid = _streamer()
    before = _cpu(pid)
    await asyncio.sleep(_SECONDS)
    rows = {"unwatched, % of a core": 10 * (_cpu(pid) - before), "unwatched, MB": _memory_mb(pid)}
    rows["first frame, s (loads its libraries)"] = await _first_frame()
    rows["first frame again, median s"] = statistics.median([await _first_frame() for _ in range(_STARTS)])
    rows["watched, % of a core"], rows["watched, frames/s"], rows["watched, kbit/s"] = await _share(pid)
    rows["watched, MB"] = _memory_mb(pid)
    # A cursor that blinks would pass for a letter.
    _run("adb", "bench", "shell", "printf '\\033[?25l' >/dev/tty1")
    took = await _clicks()
    rows["click to photon, median ms"] = statistics.median(took)
    rows["click to photon, worst ms"] = max(took)
    _run(
        "adb",
        "bench",
        "shell",
        "(while :; do cat /proc/interrupts; done >/dev/tty1 2>&1 </dev/null &) >/dev/null 2>&1",
    )
    rows["scrolling, % of a core"], rows["scrolling, frames/s"], rows["scrolling, kbit/s"] = await _share(pid)
    return rows


def main() -> None:
    """Boot one guest and look at it."""
    host_package = package.ensure()
    namespace.enter("bench.screen")
    _run("host", "setup", "--instances", "1")
    with _operator():
        _run("launch", "bench", "--host-package", str(host_package), "--gpu", "guest_swiftshader")
        try:
            rows = asyncio.run(_measure())
        finally:
            _run("rm", "--force", "bench")
    print(f"{'what':<40} {'':>9}")
    for name, value in rows.items():
        print(f"{name:<40} {value:9.2f}")
    print(json.dumps({name: round(value, 3) for name, value in rows.items()}))


if __name__ == "__main__":
    main()
