"""Certificates for tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cfctl.relay import certificates


def other() -> bytes:
    """Return the certificate of another relay."""
    with tempfile.TemporaryDirectory() as directory:
        made = certificates.ensure(Path(directory) / "certificate.pem", Path(directory) / "key.pem")
        return made.certificate.read_bytes()
