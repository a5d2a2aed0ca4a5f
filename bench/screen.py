"""What a screen costs, and how soon it is seen: the embedded guest, the relay, and viewers of ours.

Time to the first frame, frames per second, click to photon (a key pressed until its letter is in a decoded frame),
what the streamer takes of a processor (unwatched, watched, with text that scrolls), and what the relay takes for
1, 8 and 32 viewers of a line that changes, beside decoding and encoding the same frames for each of them.

Prints two tables and, as the last line, JSON. Run it as root: ``python -m bench.screen [VIEWERS...]``.
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
from cfctl.guest.streamer import vp8
from cfctl.viewer import signalling, stream
from cfctl.wire import webrtc_channels as channels

_CFCTL = [sys.executable, "-m", "cfctl"]
_ADDRESS = "127.0.0.1:8443"
_DEVICE = "cvd-1"
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
def _relay() -> Iterator[int]:
    """Run a relay for the block; give its process."""
    argv = [*_CFCTL, "relay", "serve", "--web", _ADDRESS, "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        if not any(json.loads(line)["event"] == "ready" for line in child.stdout):
            raise SystemExit("the relay does not serve")
        try:
            yield child.pid
        finally:
            child.terminate()
            child.communicate()


def _operator(token: str) -> signalling.Operator:
    return signalling.Operator(f"http://{_ADDRESS}", token=token)


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


async def _first_frame(operator: signalling.Operator) -> float:
    started = time.perf_counter()
    async with stream.watching(operator, _DEVICE) as viewer:
        async for _ in viewer.frames():
            return time.perf_counter() - started
    raise AssertionError


async def _share(operator: signalling.Operator, pid: int) -> tuple[float, float, float]:
    """Watch for some seconds; return the streamer's share of a processor in percent, frames/s and kbit/s."""
    async with stream.watching(operator, _DEVICE) as viewer:
        frames = viewer.frames()
        await anext(frames)
        before, count, size, started = _cpu(pid), 0, 0, time.perf_counter()
        async for data in frames:
            count, size = count + 1, size + len(data)
            if (seconds := time.perf_counter() - started) > _SECONDS:
                break
        return 100 * (_cpu(pid) - before) / seconds, count / seconds, 8 * size / seconds / 1000
    raise AssertionError


async def _clicks(operator: signalling.Operator) -> list[float]:
    """Type letters; return the milliseconds until each changes the picture."""
    took = []
    async with stream.watching(operator, _DEVICE) as viewer:
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


async def _measure(operator: signalling.Operator) -> dict[str, float]:
    pid = _streamer()
    before = _cpu(pid)
    await asyncio.sleep(_SECONDS)
    rows = {"unwatched, % of a core": 100 * (_cpu(pid) - before) / _SECONDS, "unwatched, MB": _memory_mb(pid)}
    rows["first frame, s (loads its libraries)"] = await _first_frame(operator)
    rows["first frame again, median s"] = statistics.median([await _first_frame(operator) for _ in range(_STARTS)])
    rows["watched, % of a core"], rows["watched, frames/s"], rows["watched, kbit/s"] = await _share(operator, pid)
    rows["watched, MB"] = _memory_mb(pid)
    # A cursor that blinks would pass for a letter.
    _run("adb", "bench", "shell", "printf '\\033[?25l' >/dev/tty1")
    took = await _clicks(operator)
    rows["click to photon, median ms"] = statistics.median(took)
    rows["click to photon, worst ms"] = max(took)
    return rows


def _show(what: str) -> None:
    """Have the guest's screen show something again and again."""
    _run("adb", "bench", "shell", f"(while :; do {what}; done >/dev/tty1 2>&1 </dev/null &) >/dev/null 2>&1")


async def _scrolling(operator: signalling.Operator) -> dict[str, float]:
    _show("cat /proc/interrupts")
    share, frames, size = await _share(operator, _streamer())
    return {"scrolling, % of a core": share, "scrolling, frames/s": frames, "scrolling, kbit/s": size}


# -- many viewers ----------------------------------------------------------------------------------------------------


async def _look(token: str, count: int) -> None:
    """Be so many viewers: say when all are shown something, and how many frames/s each has had for some seconds."""
    shown = [0] * count

    async def one(number: int) -> None:
        async with stream.watching(_operator(token), _DEVICE) as viewer:
            async for _ in viewer.frames():
                shown[number] += 1

    tasks = []
    for number in range(count):
        # One after the other: their beginnings are no part of what is measured.
        tasks.append(asyncio.create_task(one(number)))
        while not shown[number]:
            await asyncio.sleep(0.05)
            if tasks[-1].done():
                tasks[-1].result()
    print("all", flush=True)
    await asyncio.sleep(2)
    before, started = list(shown), time.monotonic()
    await asyncio.sleep(_SECONDS)
    seconds = time.monotonic() - started
    print(json.dumps([(now - had) / seconds for now, had in zip(shown, before, strict=True)]), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _watched_by(count: int, token: str, relay: int) -> dict[str, float]:
    """Return what the relay takes for so many viewers, and what the slowest of them is shown."""
    argv = [sys.executable, "-m", "bench.screen", _LOOK, str(count)]
    # Not in its arguments, which every list of processes shows.
    environment = {**os.environ, _TOKEN: token}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        if child.stdout.readline() != "all\n":
            raise SystemExit(f"not all of {count} viewers were shown something")
        before, started = _cpu(relay), time.monotonic()
        shown = json.loads(child.stdout.readline())
        share = 100 * (_cpu(relay) - before) / (time.monotonic() - started)
    return {"the relay, % of a core": share, "the slowest viewer, frames/s": min(shown)}


async def _encoded_anew(operator: signalling.Operator) -> float:
    """Return what decoding and encoding the frames for one viewer takes, in percent of a core."""
    packets: list[bytes] = []
    async with stream.watching(operator, _DEVICE) as viewer:
        started = time.monotonic()
        async for data in viewer.frames():
            packets.append(data)
            if (seconds := time.monotonic() - started) > _SECONDS:
                break
    decoder, encoder = av.CodecContext.create("libvpx", "r"), vp8.Encoder()
    assert isinstance(decoder, av.VideoCodecContext)
    before = time.process_time()
    for number, data in enumerate(packets):
        for frame in decoder.decode(av.Packet(data)):
            encoder.encode(frame, key=not number, pts=number)
    return 100 * (time.process_time() - before) / seconds


_LOOK = "--look"
_TOKEN = "CFCTL_BENCH_TOKEN"


def main() -> None:
    """Boot one guest and look at it."""
    if sys.argv[1:2] == [_LOOK]:
        asyncio.run(_look(os.environ[_TOKEN], int(sys.argv[2])))
        return
    counts = [int(word) for word in sys.argv[1:]] or [1, 8, 32]
    host_package = package.ensure()
    namespace.enter("bench.screen")
    _run("host", "setup", "--instances", "1")
    with _relay() as relay:
        _run("launch", "bench", "--host-package", str(host_package), "--gpu", "guest_swiftshader")
        try:
            token = json.loads(_run("relay", "token", "create", "--role", "operator", "--json"))["secret"]
            rows = asyncio.run(_measure(_operator(token)))
            # Ten times a second, as somebody's finger that draws.
            _show("printf '\\033[5;1H%s' \"$(cat /proc/uptime)\"; sleep 0.1")
            again = asyncio.run(_encoded_anew(_operator(token)))
            fan = {count: _watched_by(count, token, relay) for count in counts}
            rows |= asyncio.run(_scrolling(_operator(token)))
        finally:
            _run("rm", "--force", "bench")
    for count, row in fan.items():
        row["decoding and encoding for each, % of a core"] = again * count
    for name, value in rows.items():
        print(f"{name:<48}{value:10.2f}")
    print(f"\n{'viewers of a line that changes':<48}" + "".join(f"{count:>10}" for count in fan))
    for name in next(iter(fan.values())):
        print(f"{name:<48}" + "".join(f"{row[name]:>10.2f}" for row in fan.values()))
    print(json.dumps({**{name: round(value, 3) for name, value in rows.items()}, "viewers": fan}))


if __name__ == "__main__":
    main()
