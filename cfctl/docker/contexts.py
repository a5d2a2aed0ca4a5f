"""Docker contexts: the engines that ``docker context`` knows by name.

Read here and not with docker-py, which looks in the current directory as long as there is no config.json.
The layout: <configuration>/contexts/meta/SHA256-OF-NAME/meta.json, and keys below contexts/tls.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from cfctl.errors import UsageError

DEFAULT = "default"


def _configuration() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def current() -> str:
    """Return the name of the context in use: DOCKER_CONTEXT, or what ``docker context use`` has set."""
    if name := os.environ.get("DOCKER_CONTEXT"):
        return name
    try:
        settings = json.loads((_configuration() / "config.json").read_bytes())
    except (OSError, ValueError):
        return DEFAULT
    return str(settings.get("currentContext") or DEFAULT)


def address(name: str) -> tuple[str, Any]:
    """Return the address of a context, and its TLS settings (docker-py's, or None).

    :raises UsageError: if there is no context of that name, or its file cannot be understood.
    """
    id_ = hashlib.sha256(name.encode()).hexdigest()
    contexts = _configuration() / "contexts"
    file = contexts / "meta" / id_ / "meta.json"
    try:
        endpoint = json.loads(file.read_bytes())["Endpoints"]["docker"]
        url = str(endpoint["Host"])
    except FileNotFoundError:
        raise UsageError(
            f"there is no Docker context {name!r}",
            "It is not an address either: those begin with unix://, ssh:// or tcp://.",
            "See which there are: docker context ls",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"the Docker context {name!r} cannot be read", f"{file}: {exc!r}") from exc
    return url, _tls(contexts / "tls" / id_ / "docker", verify=not endpoint.get("SkipTLSVerify", False))


def _tls(keys: Path, *, verify: bool) -> Any:
    if not keys.is_dir():
        return None
    from docker.tls import TLSConfig

    ca, certificate, key = (keys / f"{name}.pem" for name in ("ca", "cert", "key"))
    return TLSConfig(
        client_cert=(str(certificate), str(key)) if certificate.exists() and key.exists() else None,
        ca_cert=str(ca) if ca.exists() else None,
        verify=verify,
    )
