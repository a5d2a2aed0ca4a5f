"""``cfctl relay``: devices of this host, served to callers here and elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cfctl.cli.common import Answer, print_json, verb
from cfctl.errors import UsageError

app = typer.Typer(
    help="Serve the devices of this host to callers here and elsewhere.", no_args_is_help=True, rich_markup_mode=None
)
token = typer.Typer(
    help="Tokens: who may call from elsewhere, and what for.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(token, name="token")


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
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="A certificate of yours, instead of the relay's own.", metavar="FILE"),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, without a passphrase.", metavar="FILE")] = None,
    json_: bool = False,
) -> None:
    """Serve devices until Ctrl-C or SIGTERM; SIGHUP has tokens, certificate and log read again.

    As root it serves everybody's devices, each to their owner; as any other user only your own. On this host callers
    use a unix socket and need no token.

    \b
    Examples:
      cfctl relay serve
      cfctl relay serve --grpc 0.0.0.0:7070
      cfctl relay serve --grpc 192.0.2.1:7070 --tls-cert relay.pem --tls-key relay.key
    """
    from cfctl.relay import server
    from cfctl.relay.certificates import Certificate

    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    certificate = Certificate(tls_cert.absolute(), tls_key.absolute()) if tls_cert and tls_key else None
    options = server.Options(grpc=server.address(grpc) if grpc else None, certificate=certificate)
    server.Server(options, print_json if json_ else _tell).run()


def _tell(document: dict[str, Any]) -> None:
    """Say to people what the relay does."""
    if document["event"] == "listening":
        print(f"{document['what']} callers are heard at {document['address']}", flush=True)
        if "fingerprint" in document:
            print(f"The certificate's SHA-256 is {document['fingerprint']}", flush=True)
    elif document["event"] == "leaving":
        print(f"Leaving; {document['calls']} calls are open.", flush=True)


@verb(token, "create")
def create(
    *,
    role: Annotated[str, typer.Option(help="viewer, operator or admin.", metavar="ROLE")] = "viewer",
    device: Annotated[str, typer.Option(help="Only devices of such names: phone, farm-*.", metavar="PATTERN")] = "*",
    ttl: Annotated[str, typer.Option(help="How long it counts: 90s, 30m, 8h, 7d.", metavar="TIME")] = "8h",
    user: Annotated[
        str | None, typer.Option(help="Whose devices; only root may name somebody else [default: you].")
    ] = None,
) -> Answer:
    """Make a token. Its secret is shown once, and stored nowhere.

    A viewer looks; an operator also stops, restarts, controls and tunnels; an admin also launches.

    \b
    Examples:
      cfctl relay token create
      cfctl relay token create --role operator --device 'farm-*' --ttl 30d
      sudo cfctl relay token create --user ci --role admin
    """
    from cfctl import paths
    from cfctl.relay import people, roles, tokens

    own = people.by_uid(os.geteuid())
    whose = people.by_name(user) if user else own
    if whose.uid != own.uid and not own.is_root:
        raise UsageError(f"only root makes tokens for {user}")
    made, secret = tokens.make(user=whose.name, level=roles.role(role), devices=device, ttl=tokens.lifetime(ttl))
    tokens.Store(paths.current().relay_tokens).add(made)
    return Answer({**made.as_dict(), "secret": secret}, lambda: print(secret))
