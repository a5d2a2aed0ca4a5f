"""``webRTC``: the program, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl.errors import CfctlError
from cfctl.guest import gflags, streaming
from cfctl.guest.bootlog import LauncherLog
from cfctl.guest.configuration import Configuration
from cfctl.guest.options import default_number
from cfctl.guest.streamer import rfb
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cfctl.guest.streamer.sessions import Sessions

FLAGS = {
    flag.name: flag
    # As upstream's: where the boot is told of.
    for flag in (gflags.Flag("kernel_log_events_fd", gflags.Kind.INT32, "-1", used=True),)
}

#: What the package does not bring.
LIBRARIES = ("aiortc", "av", "msgspec")

#: The one that QEMU's VGA has.
LABEL = "display_0"

#: The guest boots beside this, and matters more.
_NICE = 5

#: QEMU listens a moment after it was started.
_VNC_S = 10.0
_TICK_S = 0.1

#: For the last words to clients.
_GOODBYE_S = 0.5


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be ``webRTC``; return the exit status."""
    values = gflags.parse(FLAGS, argv, program="webRTC", environ=environ)
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        print(f"{sys.executable} lacks what a screen needs: {', '.join(missing)}", file=sys.stderr)
        return streaming.LACKS
    with contextlib.suppress(OSError):
        os.nice(_NICE)
        Path("/proc/self/comm").write_text("webRTC")
    try:
        configuration = Configuration.read(environ)
        return asyncio.run(_life(configuration, Instance(default_number(environ)), values))
    except CfctlError as exc:
        print(exc, file=sys.stderr)
        return 1


async def _life(configuration: Configuration, instance: Instance, values: gflags.Values) -> int:
    from cfctl.guest.streamer.registration import Registration
    from cfctl.guest.streamer.sessions import Sessions
    from cfctl.wire import webrtc_messages as messages

    places, part = configuration.places, configuration.instance(instance)
    log = LauncherLog(places.instance(instance) / "logs" / "launcher.log", "webRTC")

    def say(text: str) -> None:
        log.write("I", text.replace("\n", " / "))

    me = asyncio.current_task()
    assert me is not None  # noqa: S101 (this is one)
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(sig, me.cancel)
    sessions = Sessions(places.vnc(instance), places.input(instance), part, LABEL, say)
    try:
        sessions.size = await _size(places.vnc(instance))
        registration = Registration(
            Path(configuration.document["webrtc_sig_server_addr"]),
            messages.Register(part["webrtc_device_id"], 0, sessions.info()),
            sessions.hear,
            say,
        )
        sessions.forward = registration.forward
        async with asyncio.TaskGroup() as group:
            group.create_task(registration.run())
            group.create_task(_events(values.number("kernel_log_events_fd"), sessions, me.cancel))
    except asyncio.CancelledError:
        pass
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await sessions.close()
    return 0


async def _size(vnc: Path) -> tuple[int, int] | None:
    """Return the size of the picture once there is one; None if there is none for long."""
    deadline = asyncio.get_running_loop().time() + _VNC_S
    while asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(OSError, EOFError, rfb.NotVnc):
            return await rfb.size(vnc)
        await asyncio.sleep(_TICK_S)
    return None


async def _events(fd: int, sessions: Sessions, over: Callable[[], object]) -> None:
    """Take what the launcher tells, a line of JSON each.

    :param over: called when the launcher has gone, and the device with it.
    """
    from cfctl.wire import webrtc_channels as channels
    from cfctl.wire.webrtc_messages import MalformedMessage

    if fd < 0:
        return
    reader = asyncio.StreamReader()
    pipe: Any = os.fdopen(fd, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    while line := await reader.readline():
        with contextlib.suppress(MalformedMessage):
            sessions.happened(channels.read_event(line))
    over()
