"""The channel to a relay: pinned to one certificate whoever signed it, with a token; it says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cfctl.errors import CfctlError, NoSuchDevice, RelayUnreachable, RelayUntrusted
from cfctl.relay import certificates
from cfctl.relay.certificates import Certificate
from cfctl.relay.limits import Limits
from cfctl.remote import calls, certificate, channel
from cfctl.remote.contexts import Context
from cfctl.v1 import device_pb2, devices_pb2, devices_pb2_grpc
from cfctl.wire import errors

PATIENCE = 60.0


class Devices(devices_pb2_grpc.DevicesServicer):
    """Has one device; keeps what is shown to it."""

    def __init__(self, seen: list[Any]) -> None:
        self._seen = seen

    async def List(self, request: Any, context: Any) -> Any:
        self._seen.append(dict(context.invocation_metadata()).get("authorization"))
        return devices_pb2.ListResponse(devices=[device_pb2.Device(name="phone", state="running")])

    async def Get(self, request: Any, context: Any) -> Any:
        await errors.abort(context, NoSuchDevice(request.name, ["phone"]))


@dataclass
class Server:
    """A server with TLS, in a thread of its own."""

    port: int
    seen: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(made: Certificate) -> Iterator[Server]:
    """Run a server with a certificate for the block."""
    ready = threading.Event()
    server = Server(0)
    loops: list[Any] = []

    async def serve() -> None:
        grpc_server = grpc.aio.server()
        devices_pb2_grpc.add_DevicesServicer_to_server(Devices(server.seen), grpc_server)
        pair = (made.key.read_bytes(), made.certificate.read_bytes())
        server.port = grpc_server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        await grpc_server.start()
        over = asyncio.Event()
        loops.extend((asyncio.get_running_loop(), over))
        ready.set()
        await over.wait()
        await grpc_server.stop(None)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield server
    finally:
        loops[0].call_soon_threadsafe(loops[1].set)
        thread.join(PATIENCE)


#: Who signs; nobody trusts it.
ROOT = ec.generate_private_key(ec.SECP256R1())


def signed(directory: Path, names: list[x509.GeneralName]) -> Certificate:
    """Return a certificate that somebody has signed whom nobody knows, as an administrator's own may be."""
    now = datetime.datetime.now(datetime.UTC)

    def build(subject: str, issuer: str, key: Any, signer: Any, *, ca: bool) -> x509.Certificate:
        def called(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        builder = (
            x509.CertificateBuilder()
            .subject_name(called(subject))
            .issuer_name(called(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256())

    key = ec.generate_private_key(ec.SECP256R1())
    root = build("a root", "a root", ROOT, ROOT, ca=True)
    leaf = build("a relay", "a root", key, ROOT, ca=False)
    made = Certificate(directory / "chain.pem", directory / "chain.key")
    made.certificate.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (leaf, root)))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def own(directory: Path) -> Certificate:
    return certificates.ensure(directory / "certificate.pem", directory / "key.pem")


def pinned(server: Server, token: str = "secret") -> Context:
    shown = certificate.fetch(server.address)
    return Context("lab", server.address, shown.fingerprint, shown.pem, shown.server_name, token)


def ask(context: Context) -> Any:
    return asyncio.run(calls.asked(context, calls.devices))


@pytest.mark.parametrize(
    "names",
    [
        None,
        [x509.DNSName("lab.example")],
        [x509.DNSName("*.lab.example")],
        [x509.IPAddress(ipaddress.ip_address("192.0.2.1"))],
    ],
    ids=["its own", "a name", "a wildcard", "an address"],
)
def test_the_pinned_certificate_counts_whoever_signed_it(
    tmp_path: Path, names: list[x509.GeneralName] | None
) -> None:
    made = own(tmp_path) if names is None else signed(tmp_path, names)
    with serving(made) as server:
        context = pinned(server)
        assert context.fingerprint == made.fingerprint
        (device,) = ask(context)
        assert (device["name"], device["state"], device["uptime_s"]) == ("phone", "running", None)
        assert server.seen == ["Bearer secret"]


def test_errors_of_the_other_end_are_errors_here(tmp_path: Path) -> None:
    with serving(own(tmp_path)) as server:
        with pytest.raises(CfctlError) as caught:
            asyncio.run(calls.asked(pinned(server), lambda relay: calls.device(relay, "tablet")))
        assert caught.value.as_dict() == NoSuchDevice("tablet", ["phone"]).as_dict()


def test_another_certificate_gets_no_token(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with serving(own(tmp_path)) as server:
        context = pinned(server)
    with serving(own(tmp_path / "other")) as evil:
        with pytest.raises(RelayUntrusted) as caught:
            ask(replace(context, address=evil.address))
        assert evil.seen == []
    assert context.fingerprint in str(caught.value)
    assert "cfctl context add lab" in str(caught.value)


def test_a_pin_is_for_the_certificate_and_not_for_who_signed_it(tmp_path: Path) -> None:
    """Two certificates of one root: the root is sent along, and yet the pin of one is none for the other."""
    (tmp_path / "other").mkdir()
    names: list[x509.GeneralName] = [x509.DNSName("lab.example")]
    with serving(signed(tmp_path, names)) as server:
        context = pinned(server)
    with serving(signed(tmp_path / "other", names)) as evil:
        with pytest.raises(RelayUntrusted):
            ask(replace(context, address=evil.address))
        assert evil.seen == []


def test_one_that_listens_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that is stopped (SIGSTOP), or something else."""
    monkeypatch.setattr(certificate, "_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(RelayUnreachable) as caught:
        certificate.fetch(f"127.0.0.1:{mute.getsockname()[1]}")
    assert caught.value.details == "It did not answer within 0.2 s."


def test_a_relay_is_asked_whether_it_is_there_no_more_often_than_it_permits() -> None:
    ours, theirs = dict(channel._OPTIONS), dict(Limits().grpc_options())
    assert ours["grpc.keepalive_time_ms"] > theirs["grpc.http2.min_ping_interval_without_data_ms"]
    assert ours["grpc.min_reconnect_backoff_ms"] + 1000 * certificate._SECONDS <= 10_000


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(RelayUnreachable, match=r"no relay answers at 127[.]0[.]0[.]1"):
        certificate.fetch(f"127.0.0.1:{port}")
    with pytest.raises(RelayUnreachable, match=r"no relay answers at 127[.]0[.]0[.]1"):
        ask(Context("lab", f"127.0.0.1:{port}", "ab" * 32, "", "x", "t"))


def test_somebody_who_speaks_no_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"220 mail.example ESMTP\r\n")
                client.recv(100)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(RelayUnreachable, match="does not speak TLS"):
            certificate.fetch(f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join(PATIENCE)


def test_all_servers_at_once_and_those_that_do_not_answer_are_named(tmp_path: Path) -> None:
    with serving(own(tmp_path)) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        good = pinned(server)
        # It takes connections, and says nothing for ever.
        mute = replace(good, name="mute", address=f"127.0.0.1:{silent.getsockname()[1]}")
        gone = Context("gone", f"unix:{tmp_path}/none")
        census = asyncio.run(calls.everywhere([mute, good, gone], 3.0))
    assert [(device["context"], device["name"]) for device in census.devices] == [("lab", "phone")]
    assert [name for name, _ in census.unreachable] == ["mute", "gone"]
    assert all(isinstance(error, RelayUnreachable) for _, error in census.unreachable)
    assert "did not answer within 3 s" in str(census.unreachable[0][1])


def test_what_is_fetched_is_what_openssl_would_show(tmp_path: Path) -> None:
    made = own(tmp_path)
    with serving(made) as server:
        shown = certificate.fetch(server.address)
    assert shown.fingerprint == made.fingerprint
    assert ssl.PEM_cert_to_DER_cert(shown.pem) == ssl.PEM_cert_to_DER_cert(made.certificate.read_text())
    assert shown.server_name == certificates.NAME
