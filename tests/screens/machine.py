"""A VM without a guest: QEMU with a screen, a keyboard and a tablet, the streamer beside it, and a stock operator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from cfctl import arch
from cfctl.guest.layout import Places
from cfctl.instance import Instance
from cfctl.viewer.signalling import Operator

REPO = Path(__file__).resolve().parents[2]
ONE = Instance(1)
ID = "cvd_1-1-1"

_STREAMER = """
import os, sys
from cfctl.guest.streamer import program
sys.exit(program.main(sys.argv[1:], os.environ))
"""

#: For what a busy machine does by and by.
PATIENCE_S = 60.0


def until(what: str, condition: Callable[[], Any]) -> Any:
    """Wait for a condition to hold, and return what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)
    return found


async def eventually(what: str, condition: Callable[[], Awaitable[Any]]) -> Any:
    """Wait for a condition to hold, and return what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := await condition()):
        assert time.monotonic() < deadline, f"waited for {what}"
        await asyncio.sleep(0.05)
    return found


class Machine:
    """The programs, and where they meet."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.operator_socket = home / "operator"
        self.places = Places(home, home / "cuttlefish", home / "s", home / "e")
        self.url = ""
        self.adb_port = 1
        self.streamer: subprocess.Popen[bytes] | None = None
        self.events = -1
        self._qemu: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()

    @property
    def log(self) -> str:
        """What the streamer has to say."""
        files = (self.places.instance(ONE) / "logs" / "launcher.log", self.home / "streamer.out")
        return "".join(path.read_text() for path in files if path.exists())

    def start_qemu(self) -> None:
        """Start the machine; its firmware finds nothing to boot."""
        self.places.vnc(ONE).parent.mkdir(parents=True, exist_ok=True)
        self.places.vnc(ONE).unlink(missing_ok=True)
        self._qemu = self._start(
            [
                *(arch.host().qemu, "-machine", "pc" if arch.host().machine == "pc" else "virt", "-accel", "tcg"),
                *("-cpu", arch.host().tcg_cpu, "-nodefaults", "-display", "none", "-device", "VGA"),
                *("-device", "virtio-keyboard-pci", "-device", "virtio-mouse-pci", "-device", "virtio-tablet-pci"),
                *("-vnc", f"unix:{self.places.vnc(ONE)}"),
                *("-qmp", f"unix:{self.places.input(ONE)},server=on,wait=off"),
            ],
            "qemu.out",
        )
        until("QEMU", self.places.vnc(ONE).exists)

    def stop_qemu(self) -> None:
        """End the machine, as sudden as can be."""
        assert self._qemu is not None
        _end(self._qemu)

    def start_operator(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the operator; its port is its own choice."""
        self.operator_socket.unlink(missing_ok=True)
        out = self.home / "operator.out"
        out.write_bytes(b"")
        child = self._start(
            [sys.executable, "-m", "tests.screens.stock", self.operator_socket, "0", *options], out.name
        )
        self.url = f"http://127.0.0.1:{until('the operator', lambda: out.read_text().strip())}"
        until("its socket", self.operator_socket.exists)
        return child

    def start_streamer(self) -> subprocess.Popen[bytes]:
        """Start the streamer as a supervisor does."""
        part = {
            "cpus": 2,
            "memory_mb": 256,
            "gpu_mode": "guest_swiftshader",
            "webrtc_device_id": ID,
            "adb_host_port": self.adb_port,
        }
        document = {
            "root_dir": str(self.places.root),
            "instances_uds_dir": str(self.places.sockets),
            "webrtc_sig_server_addr": str(self.operator_socket),
            "instances": {"1": part},
        }
        (self.places.instance(ONE) / "logs").mkdir(parents=True, exist_ok=True)
        config = self.home / "config.json"
        config.write_text(json.dumps(document))
        reader, self.events = os.pipe()
        try:
            self.streamer = self._start(
                [sys.executable, "-c", _STREAMER, f"--kernel_log_events_fd={reader}"], "streamer.out", keep=reader
            )
        finally:
            os.close(reader)
        return self.streamer

    def tell(self, event: str) -> None:
        """Tell the streamer what has happened in the guest."""
        os.write(self.events, json.dumps({"event": event}).encode() + b"\n")

    def close(self) -> None:
        """End everything."""
        self._stack.close()
        if self.events >= 0:
            os.close(self.events)

    def _start(self, argv: list[Any], output: str, *, keep: int | None = None) -> subprocess.Popen[bytes]:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "CUTTLEFISH_INSTANCE": "1",
            "CUTTLEFISH_CONFIG_FILE": str(self.home / "config.json"),
            "PYTHONPATH": str(REPO),
        }
        with (self.home / output).open("ab") as sink:
            child = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=env,
                cwd=self.home,
                pass_fds=[] if keep is None else [keep],
            )
        self._stack.callback(_end, child)
        return child

    @property
    def operator(self) -> Operator:
        """Where the device is registered."""
        return Operator(self.url)

    # -- what the operator is asked ----------------------------------------------------------------------

    async def ask(self, path: str, data: bytes | None = None) -> Any:
        """Ask the operator, by POST if there is something to say."""
        async with (
            aiohttp.ClientSession() as http,
            http.request("GET" if data is None else "POST", self.url + path, data=data) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def registered(self) -> bool:
        """Tell whether the operator has the device."""
        return any(device["device_id"] == ID for device in await self.ask("/devices"))


def _end(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()


@contextlib.contextmanager
def machine(home: Path) -> Iterator[Machine]:
    """Give a machine of which nothing runs yet; at the end nothing does."""
    made = Machine(home)
    try:
        yield made
    finally:
        made.close()
