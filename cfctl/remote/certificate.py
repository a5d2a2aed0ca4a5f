"""The certificate that a relay shows, looked at before anything is said to it."""

from __future__ import annotations

import hashlib
import socket
import ssl
from dataclasses import dataclass

from cfctl.errors import RelayUnreachable, RelayUntrusted
from cfctl.remote import contexts

#: Seconds for the connection, and again for the handshake.
_SECONDS = 5.0

#: In every certificate that a relay makes for itself (relay/certificates.py).
OWN_NAME = "cfctl-relay"


@dataclass(frozen=True, slots=True)
class Shown:
    """A certificate.

    :param fingerprint: SHA-256, in hex.
    :param pem: itself.
    :param server_name: a name that is in it.
    """

    fingerprint: str
    pem: str
    server_name: str


def fetch(where: str) -> Shown:
    """Ask a relay for its certificate; nothing else is sent.

    :raises RelayUnreachable: if nobody answers there, or not by TLS.
    """
    # Nobody vouches for it here: it is compared with what the user knows.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, port = contexts.parts(where)
    try:
        with socket.create_connection((host, port), _SECONDS) as plain, context.wrap_socket(plain) as tls:
            der = tls.getpeercert(binary_form=True)
            speaks = tls.selected_alpn_protocol()
    except ssl.SSLError as exc:
        raise RelayUnreachable(
            where, f"What listens there does not speak TLS as a relay does: {exc.reason or exc}"
        ) from exc
    except TimeoutError as exc:
        raise RelayUnreachable(where, f"It did not answer within {_SECONDS:g} s.") from exc
    except OSError as exc:
        raise RelayUnreachable(where, exc.strerror or str(exc)) from exc
    if speaks != "h2":
        # gRPC would say so in words of its own (missing selected ALPN property).
        raise RelayUnreachable(
            where,
            "What listens there is not for programs: the relay's page, perhaps. Its address for them is `grpc`.",
        )
    if der is None:
        raise RelayUnreachable(where, "It has no certificate.")
    return Shown(hashlib.sha256(der).hexdigest(), ssl.DER_cert_to_PEM_cert(der), _name(der))


def require(shown: Shown, pinned: str, where: str, name: str) -> None:
    """Make sure that a certificate is the one that was pinned.

    :raises RelayUntrusted: if it is another.
    """
    if shown.fingerprint != pinned:
        raise RelayUntrusted(
            f"the relay at {where} has another certificate than it should have",
            f"Its SHA-256 is {shown.fingerprint}\nIt should be   {pinned}\n"
            "Somebody may sit between here and there, or the relay has a new certificate. Nothing was sent.",
            "If it has a new one (cfctl relay status, on its host), keep that: "
            f"cfctl context add {name} {where} --fingerprint SHA256",
        )


def _name(der: bytes) -> str:
    """Return a name that TLS will find in a certificate."""
    from cryptography import x509

    try:
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        found = [
            *names.value.get_values_for_type(x509.DNSName),
            *map(str, names.value.get_values_for_type(x509.IPAddress)),
        ]
    except (ValueError, x509.ExtensionNotFound):
        found = []
    plain = [name for name in found if not name.startswith("*")]
    wild = [f"relay{name[1:]}" for name in found if name.startswith("*.")]
    return OWN_NAME if OWN_NAME in found else next(iter([*plain, *wild]), OWN_NAME)
