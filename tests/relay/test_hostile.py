"""Callers that mean harm, or are broken: turned away, cheaply, and without anybody else noticing."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from cfctl.relay.splice import PREFACE
from cfctl.v1 import devices_pb2, devices_pb2_grpc
from tests.relay import certificates
from tests.relay.relays import PATIENCE_S, Relay, bearer, wait

#: KiB that a relay may have grown by after it was harmed: allocators keep some of what they once had.
_GROWTH_KIB = 16 << 10

_MIB = 1 << 20


@pytest.fixture
def unharmed(relay: Relay) -> Iterator[None]:
    """Hold that the relay answers others meanwhile and afterwards, and has given everything back at the end."""
    secret = relay.token("viewer")
    with relay.elsewhere() as channel:
        stub = devices_pb2_grpc.DevicesStub(channel)
        stub.List(devices_pb2.ListRequest(), metadata=bearer(secret), timeout=PATIENCE_S)
        files, memory = relay.descriptors(), relay.rss()
        yield
        # A connection that was there before goes on, and so do new ones, both ways in.
        stub.List(devices_pb2.ListRequest(), metadata=bearer(secret), timeout=PATIENCE_S)
        assert relay.status().version
        wait(lambda: relay.status().connections <= 2, "the end of all other connections")
        wait(lambda: relay.descriptors() <= files, "their descriptors to be closed")
        assert relay.rss() - memory < _GROWTH_KIB


def _refused(relay: Relay) -> dict[str, int]:
    return dict(relay.status().refused)


def _connect(relay: Relay, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE_S, source_address=(source, 0))


def _ended(sock: socket.socket) -> bytes:
    """Read until the other end closes; return what it said."""
    said = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while chunk := sock.recv(65536):
            said += chunk
    return said


def _secure(relay: Relay, sock: socket.socket) -> ssl.SSLSocket:
    context = ssl.create_default_context(cadata=relay.pem.decode())
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(sock, server_hostname="cfctl-relay")


@pytest.mark.usefixtures("unharmed")
def test_plain_text_on_the_tls_port(relay: Relay) -> None:
    for text in (b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n", PREFACE, b"\0" * 100):
        with _connect(relay) as sock:
            sock.sendall(text)
            # At most an alert of TLS's (RFC 8446 section 6), never an answer.
            assert _ended(sock)[:1] in (b"", b"\x15")


def test_who_only_looks_at_the_certificate_is_not_counted_as_refused(relay: Relay) -> None:
    """As `cfctl context add` does, and whatever watches that a certificate does not expire."""
    before = _refused(relay)
    for _ in range(3):
        with _connect(relay) as sock, _secure(relay, sock) as tls:
            assert tls.getpeercert()
    wait(lambda: relay.status().connections <= 1, "the end of the connections")
    assert _refused(relay) == before
    with _connect(relay) as sock, _secure(relay, sock) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
        _ended(tls)
    wait(lambda: _refused(relay).get("handshake", 0) == before.get("handshake", 0) + 1, "one to be refused")


@pytest.mark.usefixtures("unharmed")
def test_a_megabyte_of_garbage(relay: Relay) -> None:
    garbage = os.urandom(_MIB)

    def pour(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            sock.sendall(garbage)
            sock.sendall(garbage)
        # At most an alert of TLS's; HTTP/2 would have answered with a frame.
        assert _ended(sock)[:1] in (b"", b"\x15")

    for _ in range(3):
        with _connect(relay) as sock:
            pour(sock)
        with _secure(relay, _connect(relay)) as sock:
            pour(sock)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(str(relay.socket))
            pour(sock)


@pytest.mark.usefixtures("unharmed")
def test_garbage_after_a_good_beginning(relay: Relay) -> None:
    with _secure(relay, _connect(relay)) as sock:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            sock.sendall(PREFACE + os.urandom(_MIB))
        assert len(_ended(sock)) < 1000


@pytest.mark.usefixtures("unharmed")
def test_a_frame_that_claims_to_be_huge(relay: Relay) -> None:
    # A DATA frame of 16 MiB - 1 (RFC 9113 section 4.1), of which little follows.
    frame = struct.pack(">I", (1 << 24) - 1)[1:] + b"\0\0" + struct.pack(">I", 1)
    with _secure(relay, _connect(relay)) as sock:
        sock.sendall(PREFACE + b"\0\0\0\4\0\0\0\0\0" + frame + b"x" * 1000)
        assert len(_ended(sock)) < 1000


@pytest.mark.usefixtures("unharmed")
def test_a_thousand_idle_connections(relay: Relay) -> None:
    before = _refused(relay)
    with contextlib.ExitStack() as stack:
        # From twenty-five addresses, forty each: what one address may have.
        open_ = [stack.enter_context(_connect(relay, f"127.0.1.{1 + number // 40}")) for number in range(1000)]
        # Strangers push strangers out, nobody else.
        assert relay.status().connections <= 102
        with relay.elsewhere() as channel:
            request = devices_pb2.ListRequest()
            metadata = bearer(relay.token())
            devices_pb2_grpc.DevicesStub(channel).List(request, metadata=metadata, timeout=PATIENCE_S)
        for sock in open_:
            sock.settimeout(PATIENCE_S)
            assert _ended(sock) == b""
    assert _refused(relay)["strangers"] - before.get("strangers", 0) >= 800


@pytest.mark.usefixtures("unharmed")
def test_one_address_may_not_have_everything(relay: Relay) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(_connect(relay, "127.0.2.1")) for _ in range(60)]
        wait(lambda: _refused(relay).get("per_peer", 0) >= 20, "the limit of one address")
        # Another one gets as far as TLS.
        with _secure(relay, _connect(relay, "127.0.2.2")) as other:
            assert other.selected_alpn_protocol() == "h2"
        for sock in socks:
            sock.settimeout(PATIENCE_S)
            assert _ended(sock) == b""


def _slow_handshake(relay: Relay) -> socket.socket:
    return _connect(relay)


def _slow_preface(relay: Relay) -> socket.socket:
    return _secure(relay, _connect(relay))


def _slow_headers(relay: Relay) -> socket.socket:
    sock = _secure(relay, _connect(relay))
    # SETTINGS, and a HEADERS frame that goes on for ever.
    sock.sendall(PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"\0\x10\0\1\0\0\0\0\1")
    return sock


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    ("begin", "drops"),
    [(_slow_handshake, b"\x16\x03\x01\x02\0"), (_slow_preface, PREFACE), (_slow_headers, b"\0" * 4096)],
    ids=["handshake", "preface", "headers"],
)
def test_slowloris(relay: Relay, begin: Callable[[Relay], socket.socket], drops: bytes) -> None:
    """A byte now and then keeps nothing open."""
    with begin(relay) as sock, contextlib.suppress(ConnectionError, ssl.SSLError):
        deadline = time.monotonic() + PATIENCE_S
        for drop in drops:
            assert time.monotonic() < deadline, "it was kept open"
            sock.sendall(bytes([drop]))
            sock.settimeout(0.25)
            with contextlib.suppress(TimeoutError):
                while sock.recv(1024):
                    pass
                break
        else:
            sock.settimeout(PATIENCE_S)
            _ended(sock)


@pytest.mark.usefixtures("unharmed")
def test_somebody_elses_certificate_is_not_ours(relay: Relay) -> None:
    metadata = bearer(relay.token())
    with relay.elsewhere(pem=certificates.other()) as channel:
        call = devices_pb2_grpc.DevicesStub(channel).List
        with pytest.raises(grpc.RpcError) as caught:
            call(devices_pb2.ListRequest(), metadata=metadata, timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.usefixtures("unharmed")
def test_old_tls_is_not_spoken(relay: Relay) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)), _connect(relay) as sock:
        context.wrap_socket(sock)


@pytest.mark.usefixtures("unharmed")
def test_a_message_that_is_too_long(relay: Relay) -> None:
    metadata = bearer(relay.token())
    with relay.elsewhere() as channel:
        stub = devices_pb2_grpc.DevicesStub(channel)
        stub.List(devices_pb2.ListRequest(), metadata=metadata, timeout=PATIENCE_S)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Get(devices_pb2.GetRequest(name="x" * (2 << 20)), metadata=metadata, timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.usefixtures("unharmed")
def test_a_stranger_has_little_to_say(relay: Relay) -> None:
    """Before a call of his was let through, nobody's messages are kept waiting in memory."""
    request = devices_pb2.GetRequest(name="x" * (512 << 10))
    with relay.elsewhere() as channel:
        call = devices_pb2_grpc.DevicesStub(channel).Get
        with pytest.raises(grpc.RpcError) as caught:
            call(request, metadata=bearer("wrong"), timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert _refused(relay)["strange_bytes"] >= 1


@pytest.mark.usefixtures("unharmed")
def test_metadata_without_end(relay: Relay) -> None:
    metadata = (*bearer(relay.token()), *((f"x-{number}", "y" * 1000) for number in range(64)))
    with relay.elsewhere() as channel:
        call = devices_pb2_grpc.DevicesStub(channel).List
        with pytest.raises(grpc.RpcError) as caught:
            call(devices_pb2.ListRequest(), metadata=metadata, timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_nobody_reaches_what_is_behind_the_front(relay: Relay) -> None:
    """The inner socket is for the front alone: a call that comes another way is nobody's."""
    inner = relay.root / "run/relay/api.sock"
    assert inner.parent.stat().st_mode & 0o777 == 0o700
    metadata = bearer(relay.token())
    with grpc.insecure_channel(f"unix:{inner}") as channel:
        call = devices_pb2_grpc.DevicesStub(channel).List
        with pytest.raises(grpc.RpcError) as caught:
            call(devices_pb2.ListRequest(), metadata=metadata, timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_nobody_can_take_the_places_behind_the_front(relay: Relay) -> None:
    """Everybody on the host may bind an abstract name, and read which there are: none says what the next one is."""
    relay.status()
    with relay.here() as channel, contextlib.ExitStack() as stack:
        stub = devices_pb2_grpc.DevicesStub(channel)
        stub.List(devices_pb2.ListRequest(), timeout=PATIENCE_S)
        lines = Path("/proc/net/unix").read_text().splitlines()
        found = {line.split()[-1] for line in lines if f"@cfctl-relay-{relay.process.pid}-" in line}
        assert found
        for name in found:
            words = name.removeprefix("@").split("-")
            for place in (3, 4):
                for ahead in range(1, 200) if words[place].isdecimal() else ():
                    words_ = [*words[:place], str(int(words[place]) + ahead), *words[place + 1 :]]
                    squatter = stack.enter_context(socket.socket(socket.AF_UNIX))
                    with contextlib.suppress(OSError):
                        squatter.bind("\0" + "-".join(words_))
        for _ in range(3):
            assert relay.status().version
