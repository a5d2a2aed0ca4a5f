"""The daemon's own life: start, reload, drain, and what is left of callers that die."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cfctl.errors import RelayUnreachable
from cfctl.relay import certificates
from cfctl.relay.metrics import Metrics
from cfctl.remote import calls
from cfctl.remote.contexts import Context
from cfctl.v1 import devices_pb2, devices_pb2_grpc
from tests.relay.relays import PATIENCE_S, REPO, Relay, bearer, running, told, wait

#: A caller that watches devices until it is killed.
_WATCHER = """
import sys, grpc
from cfctl.v1 import devices_pb2, devices_pb2_grpc
with grpc.insecure_channel(f"unix:{sys.argv[1]}") as channel:
    for event in devices_pb2_grpc.DevicesStub(channel).Watch(devices_pb2.WatchRequest()):
        pass
"""


@contextlib.contextmanager
def _watching(relay: Relay) -> Iterator[subprocess.Popen[bytes]]:
    """Run a caller that watches; it does when the block begins."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
    watcher = subprocess.Popen([sys.executable, "-c", _WATCHER, str(relay.socket)], env=environment)
    try:
        wait(lambda: any("--watch" in child for child in relay.children()), "the watch to begin")
        yield watcher
    finally:
        watcher.kill()
        watcher.wait()


def test_a_caller_that_dies_leaves_nothing(relay: Relay) -> None:
    assert relay.status().pid == relay.process.pid
    wait(lambda: relay.children() == [], "nothing to run")
    files = relay.descriptors()
    with _watching(relay) as watcher:
        watcher.kill()
        wait(lambda: relay.children() == [], "its child to end")
    wait(lambda: relay.descriptors() <= files, "its descriptors to be closed")


def test_many_viewers_cost_one_child(relay: Relay) -> None:
    with contextlib.ExitStack() as stack:
        channel = stack.enter_context(relay.here())
        stub = devices_pb2_grpc.DevicesStub(channel)
        streams = [stub.Watch(devices_pb2.WatchRequest(), timeout=PATIENCE_S) for _ in range(10)]
        wait(lambda: relay.status().calls >= 10, "ten viewers")
        wait(lambda: relay.children(), "the watch to begin")
        assert len([child for child in relay.children() if "--watch" in child]) == 1
        for stream in streams:
            stream.cancel()
    wait(lambda: relay.children() == [], "the watch to end with the last viewer")


def test_one_that_is_frozen_is_named(relay: Relay) -> None:
    context = Context("lab", f"unix:{relay.socket}")
    asyncio.run(calls.asked(context, calls.devices))
    relay.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(RelayUnreachable) as caught:
            asyncio.run(calls.asked(context, calls.devices))
    finally:
        relay.process.send_signal(signal.SIGCONT)
    assert caught.value.details == "It took the connection, and said nothing for 5 s."
    asyncio.run(calls.asked(context, calls.devices))


def test_it_leaves_with_a_reason() -> None:
    with running(drain_s=20) as relay, relay.elsewhere() as channel:
        stub = devices_pb2_grpc.DevicesStub(channel)
        stream = stub.Watch(devices_pb2.WatchRequest(), metadata=bearer(relay.token()), timeout=PATIENCE_S)
        wait(lambda: any("--watch" in child for child in relay.children()), "the watch to begin")
        relay.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        error = told(caught.value)
        assert (error.code, error.brief) == ("relay-leaving", "the relay is being stopped")
        relay.process.wait(PATIENCE_S)
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", relay.port)):
            pass


def test_nobody_has_more_calls_open_than_he_may() -> None:
    with running(limits={"calls_per_user": 3}, metrics="127.0.0.1:0") as relay, relay.elsewhere() as channel:
        stub = devices_pb2_grpc.DevicesStub(channel)
        metadata = bearer(relay.token("viewer"))
        watches = [stub.Watch(devices_pb2.WatchRequest(), metadata=metadata, timeout=PATIENCE_S) for _ in range(3)]
        url = f"http://{relay.listeners['metrics']['address']}/metrics"
        wait(lambda: "cfctl_relay_calls_open 3.0" in _get(url), "three watches")

        def refused() -> bool:
            with pytest.raises(grpc.RpcError) as caught:
                stub.Get(devices_pb2.GetRequest(name="none"), metadata=metadata, timeout=PATIENCE_S)
            return caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        assert refused()
        # Callers from elsewhere keep nobody out who is on the host.
        assert relay.status().calls == 4
        watches[0].cancel()
        wait(lambda: not refused(), "room for another call")
        for watch in watches:
            watch.cancel()


def test_one_relay_at_a_time(relay: Relay) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPO),
        "HOME": str(relay.root),
        **{f"CFCTL_PATHS_{name.upper()}": str(relay.root / name) for name in ("config", "state", "cache")},
        "CFCTL_PATHS_RUNTIME": str(relay.root / "run"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "cfctl", "relay", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert f"another cfctl relay serve runs, pid {relay.process.pid}" in done.stderr
    assert relay.status().pid == relay.process.pid


def _fingerprint(relay: Relay) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE_S) as sock,
        context.wrap_socket(sock) as secure,
    ):
        return hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()


def test_a_certificate_of_the_administrators_and_another_one_by_reload(tmp_path: Path) -> None:
    paths = tmp_path / "relay.pem", tmp_path / "relay.key"
    first = certificates.ensure(*paths).fingerprint
    with running(certificate=[str(path) for path in paths]) as relay:
        assert relay.listeners["grpc"]["fingerprint"] == _fingerprint(relay) == first
        # One that cannot be used is not taken.
        paths[0].write_text("no certificate")
        relay.process.send_signal(signal.SIGHUP)
        _heard(relay, "error")
        assert _fingerprint(relay) == first
        for path in paths:
            path.unlink()
        second = certificates.ensure(*paths).fingerprint
        relay.process.send_signal(signal.SIGHUP)
        _heard(relay, "reloaded", times=2)
        assert _fingerprint(relay) == second != first


def _heard(relay: Relay, event: str, *, times: int = 1) -> None:
    """Read what the relay says until it has said something so often."""
    assert relay.process.stdout is not None
    for line in relay.process.stdout:
        times -= f'"event": "{event}"' in line
        if not times:
            return
    raise AssertionError(f"it ended and has not said {event}")


def test_its_files_are_its_own(relay: Relay) -> None:
    relay.token()
    state = relay.root / "state/relay"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (state, *state.iterdir())}
    assert modes["relay"] == 0o700
    assert modes["key.pem"] == modes["tokens.json"] == modes["audit.log"] == 0o600
    assert relay.socket.stat().st_mode & 0o007 == 0
    assert list((relay.root / "run/relay-nowhere").iterdir()) == []


def _get(url: str, *, secret: str | None = None, pem: bytes | None = None) -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {secret}"} if secret else {})
    context = ssl.create_default_context(cadata=pem.decode()) if pem else None
    if context is not None:
        context.check_hostname = False
    with urllib.request.urlopen(request, timeout=PATIENCE_S, context=context) as answer:
        return str(answer.read().decode())


def test_metrics_on_loopback(relay: Relay) -> None:
    base = f"http://{relay.listeners['metrics']['address']}"
    with relay.elsewhere() as channel, pytest.raises(grpc.RpcError):
        devices_pb2_grpc.DevicesStub(channel).List(devices_pb2.ListRequest(), timeout=PATIENCE_S)
    text = _get(f"{base}/metrics")
    assert 'cfctl_relay_calls_total{method="Devices/List",result="token-refused"}' in text
    assert 'cfctl_devices{state="running"}' in text
    assert "process_resident_memory_bytes" in text
    with pytest.raises(urllib.error.HTTPError) as caught:
        _get(f"{base}/")
    assert caught.value.code == 404
    caught.value.close()


def test_metrics_for_slow_and_rude_askers(relay: Relay) -> None:
    host, _, port = relay.listeners["metrics"]["address"].rpartition(":")
    with contextlib.ExitStack() as stack:
        for text in (b"", b"GET /metr", b"\0" * 20000):
            sock = stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_S))
            with contextlib.suppress(ConnectionError):
                sock.sendall(text)
        assert "cfctl_devices" in _get(f"http://{host}:{port}/metrics")


def test_metrics_beyond_loopback_need_tls_and_a_token() -> None:
    with running(metrics="0.0.0.0:0") as relay:
        port = relay.listeners["metrics"]["address"].rpartition(":")[2]
        url = f"https://127.0.0.1:{port}/metrics"
        assert "cfctl_devices" in _get(url, secret=relay.token("viewer"), pem=relay.pem)
        for secret in (None, "wrong", relay.token("viewer", devices="phone")):
            with pytest.raises(urllib.error.HTTPError) as caught:
                _get(url, secret=secret, pem=relay.pem)
            assert caught.value.code == 401
            caught.value.close()
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            _get(f"http://127.0.0.1:{port}/metrics")
        # Prometheus and curl would rather speak HTTP/2: they are told that it is not spoken here.
        modern = ssl.create_default_context(cadata=relay.pem.decode())
        modern.check_hostname = False
        modern.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", int(port)), PATIENCE_S) as sock,
            modern.wrap_socket(sock) as asker,
        ):
            assert asker.selected_alpn_protocol() == "http/1.1"


def test_systemd_is_told(tmp_path: Path) -> None:
    """Type=notify: ready after it listens, stopping before it goes, and signs of life between."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        heard: list[str] = []

        def hear() -> None:
            while "STOPPING=1" not in heard:
                heard.extend(manager.recv(4096).decode().splitlines())

        ear = threading.Thread(target=hear)
        ear.start()
        with running(environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}):
            wait(lambda: heard.count("WATCHDOG=1") >= 2, "signs of life")
        ear.join(PATIENCE_S)
    assert heard[0] == "READY=1"
    assert heard[-1] == "STOPPING=1"


def test_metrics_have_no_words_of_a_users_own() -> None:
    """What a child prints is its user's: any number of words would be any number of metrics."""
    metrics = Metrics()
    for number in range(10):
        metrics.call_ended("/cfctl.v1.Devices/Stop", f"made-up-{number}", 1.0)
        metrics.phase(f"made-up-{number}", 1.0)
    for took in ("long", None, math.nan, -1.0):
        metrics.phase("kernel", took)
    text = metrics.text([]).decode()
    assert "made-up" not in text
    assert 'cfctl_relay_calls_total{method="Devices/Stop",result="other"} 10.0' in text.splitlines()
    assert "cfctl_boot_phase_seconds_count" not in text


def test_metrics_of_tunnels_and_boots() -> None:
    metrics = Metrics()
    metrics.tunnelled("adb", "sent", 5)
    metrics.tunnelled("adb", "sent", 7)
    metrics.phase("kernel", 3.0)
    metrics.call_ended("/cfctl.v1.Control/Suspend", "vm-busy", 1.0)
    instance = {"number": 1}
    text = metrics.text([{"state": "running", "memory_mb": 2, "instances": [instance, instance]}]).decode()
    for line in (
        'cfctl_relay_tunnel_bytes_total{direction="sent",service="adb"} 12.0',
        'cfctl_boot_phase_seconds_count{phase="kernel"} 1.0',
        'cfctl_boot_phase_seconds_sum{phase="kernel"} 3.0',
        'cfctl_relay_calls_total{method="Control/Suspend",result="vm-busy"} 1.0',
        'cfctl_devices{state="running"} 1.0',
        'cfctl_devices{state="stale"} 0.0',
        "cfctl_instances_up 2.0",
        "cfctl_devices_memory_bytes 2.097152e+06",
    ):
        assert line in text.splitlines(), line
