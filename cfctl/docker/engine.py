"""The container engine: which one, how to reach it, and its errors in our words.

Any engine that speaks Docker's API: this machine's, one of a Docker context, one behind SSH, podman's socket.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cfctl.docker import contexts
from cfctl.errors import CfctlError, EngineRefused, EngineUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds without a word from the engine; making a layer of an image can be silent for long.
_PATIENCE_S = 600

_DEFAULT_URL = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Engine:
    """One engine that answers.

    :param url: its address, ``unix:///...``, ``ssh://USER@MACHINE`` or ``tcp://...``.
    :param api: docker-py's client of it.
    :param name: what another process is to give :func:`connect`: a context's name has more in it than an address.
    """

    url: str
    api: Any
    name: str

    @property
    def is_local(self) -> bool:
        """Whether its containers are on this machine: paths and addresses mean the same."""
        return self.url.startswith(("unix://", "http+unix://"))

    def dial(self, address: str, port: int, *, seconds: float) -> Any:
        """Return a stream to a port of a container: a socket, or a channel through the machine that the engine is on.

        :raises OSError: if it is not reached.
        """
        if not self.url.startswith("ssh://"):
            return socket.create_connection((address, port), timeout=seconds)
        from paramiko import SSHException

        try:
            transport = _ssh_transport(self.api)
            return transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=seconds)
        except (SSHException, EOFError) as exc:
            raise OSError(f"{exc or type(exc).__name__}") from exc


def _ssh_transport(api: Any) -> Any:
    """Return the SSH connection that docker-py talks to the engine through, made anew if it has broken."""
    adapter = api.api._custom_adapter
    transport = adapter.ssh_client.get_transport()
    if transport is None or not transport.is_active():
        adapter._connect()
        transport = adapter.ssh_client.get_transport()
    return transport


def url_of(name: str | None) -> tuple[str, Any]:
    """Return the address that a name means, and its TLS settings.

    :param name: an address, or the name of a Docker context; None means what ``docker`` itself would take:
        DOCKER_HOST, DOCKER_CONTEXT, the context in use.
    :raises UsageError: for a context that there is not.
    """
    if name is None and (host := os.environ.get("DOCKER_HOST")):
        name = host
    if name and "://" in name:
        return name, None
    context = name or contexts.current()
    return (_DEFAULT_URL, None) if context == contexts.DEFAULT else contexts.address(context)


def connect(name: str | None = None) -> Engine:
    """Return the engine of that name.

    :param name: see :func:`url_of`.
    :raises EngineUnreachable: if it does not answer.
    """
    _leave_ssh_until_needed()
    import docker
    import requests
    from docker.errors import DockerException

    url, tls = url_of(name)
    try:
        if name is None and url == os.environ.get("DOCKER_HOST") and not url.startswith("ssh://"):
            # DOCKER_TLS_VERIFY and DOCKER_CERT_PATH belong to DOCKER_HOST.
            client = docker.from_env(timeout=_PATIENCE_S)
        else:
            client = docker.DockerClient(base_url=url, tls=tls or False, timeout=_PATIENCE_S)
        client.ping()
    except _or_ssh(DockerException, requests.RequestException, OSError, EOFError) as exc:
        raise EngineUnreachable(url, _innermost(exc)) from exc
    return Engine(url, client, name or url)


def _leave_ssh_until_needed() -> None:
    """Keep docker-py from importing paramiko, two fifths of its own time, for an engine that is not behind SSH."""
    name = "docker.transport.sshconn"
    if name in sys.modules:
        return
    stand_in = ModuleType(name)

    def adapter(*args: Any, **kwargs: Any) -> Any:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return importlib.import_module(name).SSHHTTPAdapter(*args, **kwargs)

    stand_in.SSHHTTPAdapter = adapter  # type: ignore[attr-defined]
    sys.modules[name] = stand_in


def _or_ssh(*errors: type[Exception]) -> tuple[type[Exception], ...]:
    """Return errors, and what paramiko raises; where it was not imported, nobody raises that."""
    paramiko = sys.modules.get("paramiko")
    return errors if paramiko is None else (*errors, paramiko.SSHException)


@contextlib.contextmanager
def asking(what: str, resolution: str | None = None) -> Iterator[None]:
    """Turn the engine's errors in the block into ours.

    :param what: what is asked of it: "make the container".
    :raises EngineRefused: for its refusals.
    :raises EngineUnreachable: if it went away.
    """
    import requests
    from docker.errors import APIError, BuildError, DockerException

    try:
        yield
    except CfctlError:
        raise
    except APIError as exc:
        raise EngineRefused(f"the engine would not {what}", exc.explanation or str(exc), resolution) from exc
    except BuildError as exc:
        raise EngineRefused(f"the engine could not {what}", exc.msg, resolution) from exc
    except _or_ssh(requests.RequestException, EOFError, ConnectionError) as exc:
        raise EngineRefused(
            f"the engine went away while it was asked to {what}",
            _innermost(exc),
            "See whether it answers (docker info), then do the same again: what is done already is found.",
        ) from exc
    except DockerException as exc:
        raise EngineRefused(f"the engine would not {what}", str(exc), resolution) from exc


def _innermost(exc: BaseException) -> str:
    """Return the text of the error at the bottom: the libraries wrap it three times."""
    while (inner := exc.__cause__ or exc.__context__) is not None:
        exc = inner
    return str(exc) or type(exc).__name__
