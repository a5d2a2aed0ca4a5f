"""The relay's certificate: its own, made when it is first needed, or the administrator's.

Callers pin the SHA-256 of the certificate, so who signed it does not matter, and it may live long.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cfctl import disk
from cfctl.errors import UsageError

_YEARS = 10

#: In every certificate of ours: what a caller can verify whatever the address is that he calls.
NAME = "cfctl-relay"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hex: what callers compare.

        :raises UsageError: if the file holds none.
        """
        try:
            text = self.certificate.read_text()
            end = "-----END CERTIFICATE-----"
            first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
            return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
        except (OSError, ValueError) as exc:
            raise UsageError(f"{self.certificate} holds no certificate", str(exc)) from exc

    def context(self, protocol: str = "h2") -> ssl.SSLContext:
        """Return what a server needs.

        :param protocol: what it speaks, as ALPN has it: gRPC is HTTP/2.
        :raises UsageError: if certificate and key cannot be read, or do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        # A ticket saves a caller a millisecond at the next connection, and costs us memory for each.
        context.num_tickets = 0
        context.set_alpn_protocols([protocol])
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as exc:
            raise UsageError(
                f"{self.certificate} and {self.key} cannot be used for TLS",
                str(exc),
                "They must be PEM files that belong together, and the key must have no passphrase.",
            ) from exc
        return context


class Tls:
    """A certificate as it was read last: new connections get it, those that there are keep theirs.

    :raises UsageError: if it cannot be used.
    """

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self.context = certificate.context()
        #: For browsers and Prometheus: they and curl offer HTTP/2 first, and would speak it if they were let.
        self.plain = certificate.context("http/1.1")

    def read(self) -> None:
        """Read it again.

        :raises UsageError: if it cannot be used; what was read before stays.
        """
        self.context = self.certificate.context()
        # Its listeners keep this one: new connections are shown what is loaded into it.
        self.plain.load_cert_chain(self.certificate.certificate, self.certificate.key)


def ensure(certificate: Path, key: Path) -> Certificate:
    """Return the relay's own certificate; make it if there is none.

    :raises CfctlError: if the disk does not let us.
    """
    found = Certificate(certificate, key)
    if certificate.exists() and key.exists():
        return found
    # Imported here: 40 ms that only the first start costs.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key()
    host = socket.gethostname()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"cfctl relay {host}"[:64])])
    names: list[x509.GeneralName] = [x509.DNSName(NAME), x509.DNSName("localhost")]
    with contextlib.suppress(ValueError):  # a host name that no certificate can hold
        names.append(x509.DNSName(host))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # A caller's clock may be behind.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # It is its own issuer, and nobody else's: a caller who trusts it trusts no other.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        certificate.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The key first: a certificate that is there has its key.
        _write(key, secret, mode=0o600)
        _write(certificate, made.public_bytes(pem), mode=0o644)
    except OSError as exc:
        raise disk.error(certificate, exc) from exc
    return found


def _write(path: Path, content: bytes, *, mode: int) -> None:
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    scratch.rename(path)
