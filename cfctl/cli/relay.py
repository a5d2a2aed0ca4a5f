"""``cfctl relay``: devices of this host, served to callers here and elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import steps
from cfctl.cli.common import Answer, print_json, verb

if TYPE_CHECKING:
    from cfctl.config import Settings
    from cfctl.relay.server import Options

app = typer.Typer(help="Serve this host's devices, here and elsewhere.", no_args_is_help=True, rich_markup_mode=None)
token = typer.Typer(
    help="Tokens: who may call from elsewhere, and what for.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(token, name="token")

Own = Annotated[bool, typer.Option("--own", help="Of your own relay, though the host has one.", show_default=False)]


@verb(app, "serve")
def serve(
    *,
    grpc: Annotated[
        str | None,
        typer.Option(
            help="Also hear callers from elsewhere, by TLS and with tokens [default: relay.grpc].",
            metavar="ADDR:PORT",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Answer Prometheus; beyond loopback by TLS and with a token [default: relay.metrics].",
            metavar="ADDR:PORT",
        ),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            help="Show screens to browsers; beyond loopback by TLS, always by link or token [default: relay.web].",
            metavar="ADDR:PORT",
        ),
    ] = None,
    turn: Annotated[
        str | None,
        typer.Option(
            help="Run a TURN server for viewers behind NAT; an address that they reach [default: relay.turn].",
            metavar="ADDR:PORT",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="A certificate of yours, instead of the relay's own.", metavar="FILE"),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, without a passphrase.", metavar="FILE")] = None,
    json_: bool = False,
) -> None:
    """Serve devices until Ctrl-C or SIGTERM.

    As root it serves everybody's devices, each to their owner; as any other user only your own. On this host callers
    use a unix socket and need no token. SIGHUP has the certificate and the log opened again.

    \b
    Examples:
      cfctl relay serve
      cfctl relay serve --web 127.0.0.1:8443
      cfctl relay serve --grpc 0.0.0.0:7070 --metrics 127.0.0.1:9107
      cfctl relay serve --grpc 192.0.2.1:7070 --tls-cert relay.pem --tls-key relay.key
    """
    from cfctl import config
    from cfctl.relay import server

    flags = {
        "relay.grpc": grpc,
        "relay.metrics": metrics,
        "relay.web": web,
        "relay.turn": turn,
        "relay.tls_cert": os.fspath(tls_cert.absolute()) if tls_cert else None,
        "relay.tls_key": os.fspath(tls_key.absolute()) if tls_key else None,
    }
    server.Server(_options(config.load(flags=flags)), print_json if json_ else _tell).run()


def _options(settings: Settings) -> Options:
    from cfctl.errors import UsageError
    from cfctl.relay import server
    from cfctl.relay.certificates import Certificate
    from cfctl.relay.limits import Limits
    from cfctl.relay.media.ice import Ice

    certificate, key = settings["relay.tls_cert"], settings["relay.tls_key"]
    if bool(certificate) != bool(key):
        raise UsageError(
            "a certificate and its key belong together", None, "Give both: --tls-cert FILE --tls-key FILE"
        )
    return server.Options(
        grpc=server.address(settings["relay.grpc"]),
        metrics=server.address(settings["relay.metrics"]),
        web=server.address(settings["relay.web"]),
        control=settings["relay.control"],
        ice=Ice(
            stun=settings["relay.stun"],
            turn=settings["relay.turn_servers"],
            secret=_secret(settings["relay.turn_secret"]),
            relay_only=settings["relay.relay_only"],
        ),
        turn=server.address(settings["relay.turn"]),
        turn_ports=_ports(settings["relay.turn_ports"]),
        certificate=Certificate(Path(certificate), Path(key)) if certificate else None,
        drain_s=settings["relay.drain_s"],
        limits=Limits(connections=settings["relay.connections"]),
    )


def _secret(path: str) -> str:
    """Read the secret that TURN servers of the user's have too."""
    from cfctl.errors import UsageError

    if not path:
        return ""
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"relay.turn_secret: {path} cannot be read", str(exc), f"Look at it: ls -l {path}") from exc


def _ports(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    return int(first), int(last)


def _tell(document: dict[str, Any]) -> None:
    """Say to people what the relay does."""
    if document["event"] == "listening":
        _listener(document)
    elif document["event"] == "ready":
        print("Serving until Ctrl-C; devices run on then. Links to screens: cfctl open NAME", flush=True)
    elif document["event"] == "error":
        error = document["error"]
        print("\n".join(filter(None, (error["brief"], error["details"], error["resolution"]))), flush=True)
    elif document["event"] == "leaving":
        print(f"Leaving; open calls: {document['calls']}", flush=True)


#: What `relay status` counts, and what one of it is called.
_COUNTED = {"connections": "connection", "calls": "call", "children": "program", "tokens": "token"}


def _listener(listener: dict[str, Any]) -> None:
    """Show where callers are heard."""
    print(f"{listener['what']:<9} {listener['address']}", flush=True)
    if "fingerprint" in listener:
        print(f"{'':<9} certificate SHA-256 {listener['fingerprint']}", flush=True)


@verb(app, "status")
def status(*, own: Own = False) -> Answer:
    """Show how the relay of this host is.

    The exit status is 3 if none runs.

    \b
    Examples:
      cfctl relay status
      cfctl relay status --json | jq -r '.listeners[].fingerprint'
    """
    from cfctl.relay import local

    path = local.chosen(own=own)
    if path is None:
        return Answer({"state": "stopped"}, lambda: print("No relay runs. Start one: cfctl relay serve"), 3)
    from cfctl.v1 import relay_pb2

    document = {"state": "running"} | _document(
        local.call(path, lambda relay: relay.Status, relay_pb2.RelayStatusRequest())
    )

    def show() -> None:
        print(f"running since {document['started_at']} as {document['user']}, pid {document['pid']}")
        for listener in document["listeners"]:
            _listener(listener)
        print(", ".join(f"{document[what]} {one}{'s' * (document[what] != 1)}" for what, one in _COUNTED.items()))
        if document["refused"]:
            print("refused: " + ", ".join(f"{count} ({why})" for why, count in document["refused"].items()))

    return Answer(document, show)


def _document(message: Any) -> dict[str, Any]:
    """Return an answer of the relay as JSON has it; what is zero or empty is said too."""
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    # JSON of protobuf writes numbers of 64 bits as text.
    if "refused" in found:
        found["refused"] = {why: int(count) for why, count in found["refused"].items()}
    return found


@verb(token, "create")
def create(
    *,
    role: Annotated[
        str,
        typer.Option(
            help="viewer, operator or admin.",
            metavar="ROLE",
            autocompletion=lambda: ["viewer", "operator", "admin"],
        ),
    ] = "viewer",
    device: Annotated[str, typer.Option(help="Only devices of such names: phone, farm-*.", metavar="PATTERN")] = "*",
    ttl: Annotated[str, typer.Option(help="How long it counts: 90s, 30m, 8h, 7d.", metavar="TIME")] = "8h",
    user: Annotated[
        str | None,
        typer.Option(help="Whose devices; only root may name somebody else [default: you].", metavar="NAME"),
    ] = None,
    own: Own = False,
) -> Answer:
    """Make a token. Its secret is shown once, and stored nowhere.

    A viewer looks; an operator also stops, restarts, controls and tunnels; an admin also launches and
    resizes disks.

    \b
    Examples:
      cfctl relay token create
      cfctl relay token create --role operator --device 'farm-*' --ttl 30d
      sudo cfctl relay token create --user ci --role admin
    """
    from cfctl.relay import itself, local, people

    if (path := _hosts(own=own)) is None:
        who = people.by_uid(os.geteuid())
        made, secret = itself.create(_store(), who, user=user or "", role=role, devices=device, ttl=ttl)
        document = made.as_dict()
    else:
        from cfctl.v1 import relay_pb2

        request = relay_pb2.CreateTokenRequest(role=role, devices=device, ttl=ttl, user=user or "")
        answer = local.call(path, lambda relay: relay.CreateToken, request)
        document, secret = _document(answer.token), answer.secret
    steps.note(
        f"A token for the role {document['role']}, until {document['expires_at']}. It is not shown again.\n"
        "Where it is to be used: cfctl context add NAME HOST:PORT --token-file FILE"
    )
    return Answer({**document, "secret": secret}, lambda: print(secret))


@verb(token, "list")
def list_(*, own: Own = False) -> Answer:
    """List tokens: yours, or as root everybody's.

    \b
    Examples:
      cfctl relay token list
    """
    from cfctl.relay import local

    if (path := _hosts(own=own)) is None:
        documents = [one.as_dict() for one in _store().all()]
    else:
        from cfctl.v1 import relay_pb2

        answer = local.call(path, lambda relay: relay.ListTokens, relay_pb2.ListTokensRequest())
        documents = [_document(one) for one in answer.tokens]

    def show() -> None:
        if not documents:
            print("There are no tokens. Make one: cfctl relay token create")
            return
        print(f"{'ID':<8}  {'ROLE':<8}  {'USER':<12}  {'EXPIRES':<20}  DEVICES")
        for one in documents:
            over = "  expired" if one["expired"] else ""
            print(
                f"{one['id']}  {one['role']:<8}  {one['user']:<12}  {one['expires_at']:<20}  {one['devices']}{over}"
            )

    return Answer({"tokens": documents}, show)


@verb(token, "revoke")
def revoke(
    *,
    id_: Annotated[str, typer.Argument(help="As `cfctl relay token list` shows it.", metavar="ID")],
    own: Own = False,
) -> Answer:
    """Revoke a token. Calls that were made with it end.

    \b
    Examples:
      cfctl relay token revoke 1f2e3d4c
    """
    from cfctl.relay import local

    if (path := _hosts(own=own)) is None:
        document = _store().revoke(id_).as_dict()
    else:
        from cfctl.v1 import relay_pb2

        request = relay_pb2.RevokeTokenRequest(id=id_)
        document = _document(local.call(path, lambda relay: relay.RevokeToken, request))
    return Answer(document, lambda: print(f"Token {id_} does not count any more."))


def _hosts(*, own: bool) -> Path | None:
    """Return the socket of the host's relay, if its tokens are meant; None where we write the file ourselves."""
    from cfctl import paths
    from cfctl.relay import local

    place = paths.system().relay_socket
    return None if os.geteuid() == 0 or own or not local.answering(place) else place


def _store() -> Any:
    from cfctl import paths
    from cfctl.relay import tokens

    return tokens.Store(paths.current().relay_tokens)
