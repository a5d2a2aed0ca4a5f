"""Browsers that are none: the pages' listener has the limits of the other one, and nobody else notices."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator

import pytest

from tests.relay.relays import PATIENCE_S, Relay, running, wait

#: KiB that a relay may have grown by after it was harmed: allocators keep some of what they once had.
_GROWTH_KIB = 16 << 10

_MIB = 1 << 20

_ENTER = b"POST /session HTTP/1.1\r\nHost: x\r\nOrigin: https://x\r\n"


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    limits = {"handshake_s": 1.0, "introduce_s": 2.0, "per_peer_web": 40, "strangers": 100, "connections": 200}
    # Beyond loopback it speaks TLS.
    with running(web="0.0.0.0:0", limits=limits) as running_:
        yield running_


@pytest.fixture
def unharmed(relay: Relay) -> Iterator[None]:
    """Hold that pages are answered meanwhile and afterwards, over old connections too, and that all is given back."""
    with contextlib.closing(_https(relay)) as before:
        _ask(relay, before)
        files, memory = relay.descriptors(), relay.rss()
        yield
        _ask(relay, before)
        with contextlib.closing(_https(relay)) as after:
            _ask(relay, after)
    # The question's own connection, and gRPC's.
    wait(lambda: relay.status().connections <= 2, "the end of all other connections")
    wait(lambda: relay.descriptors() <= files, "their descriptors to be closed")
    assert relay.rss() - memory < _GROWTH_KIB


def _where(relay: Relay) -> tuple[str, int]:
    return "127.0.0.1", int(relay.listeners["web"]["address"].rpartition(":")[2])


def _context(relay: Relay) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=relay.pem.decode())
    context.check_hostname = False
    return context


def _https(relay: Relay, source: str = "127.0.0.1") -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(
        *_where(relay), context=_context(relay), timeout=PATIENCE_S, source_address=(source, 0)
    )


def _ask(relay: Relay, connection: http.client.HTTPSConnection) -> None:
    connection.request("GET", "/devices", headers={"Authorization": f"Bearer {relay.token('viewer')}"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"[]\n")


def _connect(relay: Relay, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(_where(relay), timeout=PATIENCE_S, source_address=(source, 0))


def _secure(relay: Relay) -> ssl.SSLSocket:
    return _context(relay).wrap_socket(_connect(relay))


def _ended(sock: socket.socket) -> bytes:
    """Read until the other end closes; return what it said."""
    said = b""
    sock.settimeout(PATIENCE_S)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while chunk := sock.recv(65536):
            said += chunk
    return said


@pytest.mark.usefixtures("unharmed")
def test_a_thousand_idle_connections(relay: Relay) -> None:
    before = relay.status().refused.get("strangers", 0)
    with contextlib.ExitStack() as stack:
        open_ = [stack.enter_context(_connect(relay, f"127.0.1.{1 + number // 40}")) for number in range(1000)]
        assert relay.status().connections <= 103
        with contextlib.closing(_https(relay)) as other:
            _ask(relay, other)
        for sock in open_:
            assert _ended(sock) == b""
    assert relay.status().refused["strangers"] - before >= 800


@pytest.mark.usefixtures("unharmed")
def test_one_address_may_not_have_everything(relay: Relay) -> None:
    before = relay.status().refused.get("per_peer", 0)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(_connect(relay, "127.0.2.1")) for _ in range(60)]
        wait(lambda: relay.status().refused.get("per_peer", 0) - before >= 20, "the limit of one address")
        with contextlib.closing(_https(relay, "127.0.2.2")) as other:
            _ask(relay, other)
        for sock in socks:
            assert _ended(sock) == b""


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("begin", [_connect, _secure], ids=["instead of TLS", "within TLS"])
def test_a_megabyte_of_garbage(relay: Relay, begin: Callable[[Relay], socket.socket]) -> None:
    with begin(relay) as sock:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            sock.sendall(os.urandom(_MIB))
        assert len(_ended(sock)) < 1000


@pytest.mark.usefixtures("unharmed")
def test_a_head_without_end(relay: Relay) -> None:
    with _secure(relay) as sock:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            sock.sendall(b"GET / HTTP/1.1\r\n" + b"X-Y: zzzzzzzz\r\n" * 70_000)
        assert len(_ended(sock)) < 1000


@pytest.mark.usefixtures("unharmed")
def test_a_stranger_has_little_to_say(relay: Relay) -> None:
    with _secure(relay) as sock:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            sock.sendall(_ENTER + b"Content-Length: 1048576\r\n\r\n")
            sock.sendall(bytes(_MIB))
        assert b"200 OK" not in _ended(sock)
    assert relay.status().refused["strange_bytes"] >= 1


@pytest.mark.usefixtures("unharmed")
def test_plain_text_where_tls_is_spoken(relay: Relay) -> None:
    with _connect(relay) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in _ended(sock)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    ("begin", "first", "drops"),
    [
        (_connect, b"", b"\x16\x03\x01\x02\0" * 20),
        (_secure, b"", b"GET / HTTP/1.1\r\nHost: " + b"x" * 200),
        (
            _secure,
            b"POST /session HTTP/1.1\r\nHost: x\r\nOrigin: https://x\r\nContent-Length: 999\r\n\r\n",
            b"{" * 200,
        ),
        (_secure, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: " + b"x" * 200),
    ],
    ids=["handshake", "head", "body", "second head"],
)
def test_slowloris(relay: Relay, begin: Callable[[Relay], socket.socket], first: bytes, drops: bytes) -> None:
    """A byte now and then keeps nothing open."""
    with begin(relay) as sock, contextlib.suppress(ConnectionError, ssl.SSLError):
        sock.sendall(first)
        deadline = time.monotonic() + PATIENCE_S
        for drop in drops:
            assert time.monotonic() < deadline, "it was kept open"
            sock.sendall(bytes([drop]))
            sock.settimeout(0.25)
            with contextlib.suppress(TimeoutError):
                while sock.recv(65536):
                    pass
                break
        else:
            pytest.fail("it was kept open")


def test_nobody_reaches_the_pages_but_by_the_front(relay: Relay) -> None:
    inner = relay.root / "run/relay/web.sock"
    assert inner.parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(inner))
        bearer = f"Authorization: Bearer {relay.token('admin')}"
        sock.sendall(f"GET /devices HTTP/1.1\r\nHost: x\r\n{bearer}\r\nConnection: close\r\n\r\n".encode())
        assert _ended(sock).startswith(b"HTTP/1.1 401 ")
