"""``cfctl context``: the relays of other servers, and which of them verbs are for."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli.common import Answer, verb
from cfctl.cli.complete import context_names
from cfctl.cli.elsewhere import HERE
from cfctl.errors import RelayUntrusted, UsageError

if TYPE_CHECKING:
    from cfctl.remote.contexts import Book, Context

app = typer.Typer(help="Other servers that verbs can be for.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="The context.", metavar="NAME", autocompletion=context_names)]


@verb(app, "add", remote=HERE)
def add(
    *,
    name: Annotated[str, typer.Argument(help="What to call it.", metavar="NAME")],
    address: Annotated[str, typer.Argument(help="HOST:PORT of its relay, or unix:PATH.", metavar="ADDRESS")],
    fingerprint: Annotated[
        str | None,
        typer.Option(help="SHA-256 of its certificate [default: ask, at a terminal].", metavar="SHA256"),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with the token; - is standard input [default: ask].", metavar="FILE"),
    ] = None,
) -> Answer:
    """Know another server's relay.

    Its certificate is pinned, and its token is kept for you alone.

    The relay shows its fingerprint when it starts, and in cfctl relay status. Without --fingerprint you are shown
    the one that answers and asked. A context of the same name is replaced.

    \b
    Examples:
      cfctl context add lab lab.example:7070 --fingerprint 9f86d081... --token-file token
      ssh lab cfctl relay token create | cfctl context add lab lab.example:7070 --fingerprint 9f86... --token-file -
      cfctl context add here unix:/run/cfctl/relay.sock
    """
    from cfctl.control import sync
    from cfctl.remote import calls, certificate, contexts

    where = contexts.address(address)
    context = contexts.Context(contexts.name(name), where)
    if not context.is_local_socket:
        pinned = contexts.fingerprint(fingerprint) if fingerprint else None
        shown = certificate.fetch(where)
        if pinned is not None:
            certificate.require(shown, pinned, where, name)
        else:
            _confirm(shown.fingerprint, name, where, token_file)
        context = contexts.Context(name, where, shown.fingerprint, shown.pem, shown.server_name, _token(token_file))
    # A wrong token is better known now.
    sync.run(calls.asked(context, calls.devices))
    book = contexts.add(context)
    document = context.as_dict(current=book.current == context.name)
    return Answer(document, lambda: print(f"{name} is known. Look: cfctl --relay {name} ps"))


def _confirm(fingerprint: str, name: str, where: str, token_file: Path | None) -> None:
    """Ask whether a certificate is the right one.

    :raises RelayUntrusted: if it is not, or nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise RelayUntrusted(
            f"nobody has compared the certificate of the relay at {where}",
            f"Its SHA-256 is {fingerprint}\nNothing was kept.",
            "Compare it with what cfctl relay status shows on its host, and then:\n"
            f"cfctl context add {name} {where} --fingerprint {fingerprint} --token-file {token_file or 'FILE'}",
        )
    print(f"The relay at {where} shows a certificate with the SHA-256\n  {fingerprint}", file=sys.stderr)
    print("Is it the one that cfctl relay status shows on its host? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RelayUntrusted("the certificate was not taken", "Nothing was kept.")


def _token(file: Path | None) -> str:
    """Return the token.

    :raises UsageError: if there is none, or it cannot be one.
    """
    if file is None:
        if not sys.stdin.isatty():
            raise UsageError(
                "a relay that is not this machine's own wants a token",
                None,
                "Have one made on its host (cfctl relay token create), and give it: --token-file FILE",
            )
        import getpass

        text = getpass.getpass("Token (it is not shown): ")
    else:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.expanduser().read_text()
        except OSError as exc:
            raise UsageError(f"{file} cannot be read: {exc.strerror}") from exc
    token = text.strip()
    if not token or not token.isascii() or len(token.split()) != 1:
        raise UsageError("that is no token", "It is one word, as cfctl relay token create prints it.")
    return token


@verb(app, "use", remote=HERE)
def use(*, name: Name) -> Answer:
    """Choose the server that device verbs are for without --relay.

    It counts from now on; local is this machine again. Groups of verbs (host, docker, images, ...) stay this
    machine's in any case.

    \b
    Examples:
      cfctl context use lab
      cfctl context use local
    """
    from cfctl.remote import contexts

    return _listed(contexts.use(name))


@verb(app, "list", remote=HERE)
def list_() -> Answer:
    """List the servers that are known; * marks the one in use.

    \b
    Examples:
      cfctl context list
      cfctl context list --json
    """
    from cfctl.remote import contexts

    return _listed(contexts.load())


@verb(app, "remove", remote=HERE)
def remove(*, name: Name) -> Answer:
    """Forget a server, with its token.

    \b
    Examples:
      cfctl context remove lab
    """
    from cfctl.remote import contexts

    return _listed(contexts.remove(name))


def _listed(book: Book) -> Answer:
    rows = [context.as_dict(current=context.name == book.current) for context in book.contexts]
    document: dict[str, Any] = {"current": book.current or None, "contexts": rows}
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return Answer(document, lambda: print("\n".join(table(book, width))))


def table(book: Book, width: int | None) -> list[str]:
    """Return the lines of the table.

    :param width: where a row is longer than so many columns, each cell gets a line; None is as wide as need be.
    """
    if not book.contexts:
        return ["There are no contexts.", "Add one: cfctl context add NAME HOST:PORT"]
    rows = [("", "NAME", "ADDRESS", "CERTIFICATE"), *(_row(context, book) for context in book.contexts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows]
    if width is None or max(map(len, lines)) <= width:
        return lines
    return [
        line for mark, name, *more in rows[1:] for line in (f"{mark:1} {name}", *(f"    {cell}" for cell in more))
    ]


def _row(context: Context, book: Book) -> tuple[str, ...]:
    mark = "*" if context.name == book.current else ""
    return mark, context.name, context.address, context.fingerprint[:16] + "..." if context.fingerprint else "-"
