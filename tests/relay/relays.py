"""A relay for a test: a program of its own, with files of its own, on ports that nobody else has."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from cfctl.relay import people, tokens
from cfctl.relay.certificates import NAME
from cfctl.relay.roles import role
from cfctl.v1 import device_pb2, relay_pb2, relay_pb2_grpc

REPO = Path(__file__).resolve().parents[2]

#: A generous deadline for whatever a test waits for.
PATIENCE_S = 60.0


@dataclass
class Relay:
    """A relay that runs."""

    process: subprocess.Popen[str]
    root: Path
    listeners: dict[str, dict[str, str]]
    _start: Callable[[Mapping[str, Any]], subprocess.Popen[str]]

    @property
    def socket(self) -> Path:
        """Its unix socket."""
        return self.root / "run/relay.sock"

    @property
    def port(self) -> int:
        """Where it hears callers from elsewhere, on loopback."""
        return int(self.listeners["grpc"]["address"].rpartition(":")[2])

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return (self.root / "state/relay/certificate.pem").read_bytes()

    @property
    def store(self) -> tokens.Store:
        """Its tokens."""
        return tokens.Store(self.root / "state/relay/tokens.json")

    def token(self, level: str = "admin", *, devices: str = "*", user: str = "", ttl: str = "1h") -> str:
        """Make a token; return its secret."""
        made, secret = tokens.make(
            user=user or people.by_uid(os.geteuid()).name,
            level=role(level),
            devices=devices,
            ttl=tokens.lifetime(ttl),
        )
        self.store.add(made)
        return secret

    def here(self) -> grpc.Channel:
        """Return a channel over the unix socket."""
        return grpc.insecure_channel(f"unix:{self.socket}", options=[("grpc.use_local_subchannel_pool", 1)])

    def elsewhere(self, *, pem: bytes | None = None) -> grpc.Channel:
        """Return a channel over TLS."""
        return grpc.secure_channel(
            f"127.0.0.1:{self.port}",
            grpc.ssl_channel_credentials(pem or self.pem),
            # Channels of other tests must not lend theirs.
            options=[("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)],
        )

    def stop(self) -> None:
        """End it; it must do so by itself when it is told to."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, said
        assert "Traceback" not in said, said
        assert list((self.root / "run").glob("*.sock")) == []

    def start(self) -> None:
        """Start it again after a stop, with the same files, and with the same address for browsers."""
        web = {"web": urlsplit(self.listeners["web"]["address"]).netloc} if "web" in self.listeners else {}
        self.process = self._start(web)
        self.listeners = _listeners(self.process)

    def status(self) -> relay_pb2.RelayStatus:
        """Return how it is; this question's own connection is among the counted."""
        with self.here() as channel:
            call: Any = relay_pb2_grpc.RelayStub(channel).Status
            answer: relay_pb2.RelayStatus = call(relay_pb2.RelayStatusRequest(), timeout=PATIENCE_S)
            return answer

    def audit(self) -> list[dict[str, Any]]:
        """Return the audit log."""
        return [json.loads(line) for line in (self.root / "state/relay/audit.log").read_text().splitlines()]

    def rss(self) -> int:
        """Return what it holds of memory, in KiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("it is gone")

    def children(self) -> list[str]:
        """Return the command lines of the programs that it has started."""
        found = []
        for entry in Path(f"/proc/{self.process.pid}/task").iterdir():
            pids = []
            with contextlib.suppress(OSError):  # a thread that has ended meanwhile
                pids = (entry / "children").read_text().split()
            for pid in pids:
                with contextlib.suppress(OSError):
                    found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def descriptors(self) -> int:
        """Return how many files it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that shows a token."""
    return (("authorization", f"Bearer {secret}"),)


def told(failed: grpc.RpcError) -> device_pb2.Error:
    """Return the whole error of a call that failed."""
    trailing: Any = failed
    for key, value in trailing.trailing_metadata():
        if key == "cfctl-error-bin":
            return device_pb2.Error.FromString(value)
    raise AssertionError(f"no error of ours: {failed}")


def wait(condition: Callable[[], Any], what: str) -> Any:
    """Wait until something holds; return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def running(*, environment: Mapping[str, str] | None = None, **options: Any) -> Iterator[Relay]:
    """Run a relay for the block; it must end by itself when it is told to.

    :param environment: more variables for it.
    :param options: of :mod:`tests.relay.serve`.
    """
    # The path of a socket is short; pytest's own directories are not.
    root = Path(tempfile.mkdtemp(prefix="cfctl-r-"))
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "PYTHONPATH": str(REPO),
        "LC_ALL": "C.UTF-8",
        **{f"CFCTL_PATHS_{name.upper()}": str(root / name) for name in ("config", "state", "cache")},
        "CFCTL_PATHS_RUNTIME": str(root / "run"),
        **(environment or {}),
    }
    options = {"grpc": "127.0.0.1:0", **options}

    def start(more: Mapping[str, Any]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.relay.serve", json.dumps({**options, **more})],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPO,
            env=variables,
        )
        started.append(process)
        return process

    started: list[subprocess.Popen[str]] = []
    try:
        process = start({})
        relay = Relay(process, root, _listeners(process), start)
        yield relay
        relay.stop()
    finally:
        for process in started:
            process.kill()
            process.communicate()
        shutil.rmtree(root, ignore_errors=True)


def _listeners(process: subprocess.Popen[str]) -> dict[str, dict[str, str]]:
    """Return where a relay listens, once it does."""
    found: dict[str, dict[str, str]] = {}
    assert process.stdout is not None
    for line in process.stdout:
        document = json.loads(line)
        if document["event"] == "ready":
            return found
        found[document["what"]] = document
    process.wait()
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())
