"""What all verbs share: the options of every verb, how an answer is shown, how an error ends."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import steps
from cfctl.cli import elsewhere, progress
from cfctl.cli.colour import use_colour
from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

#: Where sudo looks for a program, whatever the caller's PATH says: the shortest secure_path of the distributions.
_SUDO_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

#: Exit status of an interrupted verb (128 + SIGINT).
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb has to say.

    :param document: the JSON document of ``--json``; its keys are a contract (docs/schema/).
    :param show: prints the same for people, on standard output.
    :param exit_code: 0 done, 3 state differs or not running.
    :param done: it tells what was done, not what was asked for: ``--quiet`` leaves it out.
    """

    document: Mapping[str, Any]
    show: Callable[[], None]
    exit_code: int = 0
    done: bool = False


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output.", show_default=False)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Do not show what is being done.", show_default=False)
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show every command that is run.", show_default=False)
]

_COMMON = {"json_": JsonOption, "quiet": QuietOption, "verbose": VerboseOption}


def verb(
    app: typer.Typer, name: str, *, passes_flags: bool = False, remote: str | None = None
) -> Callable[[Callable[..., Answer | None]], Callable[..., None]]:
    """Register a function as a verb, with ``--json``, ``--quiet`` and ``--verbose``.

    The function returns an :class:`Answer`, or None when it has printed a stream by itself. A function that has a
    parameter ``json_`` is told whether JSON is wanted.

    :param passes_flags: what follows the first argument is handed on, whatever it looks like.
    :param remote: what does the same through a relay, ``module:function`` with the same arguments;
        :data:`elsewhere.HERE` for a verb that is about this machine alone.
    """
    if remote and remote != elsewhere.MACHINE:
        elsewhere.register(name)

    def register(function: Callable[..., Answer | None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        own = [
            parameter.replace(annotation=_COMMON[name])
            if name in _COMMON and parameter.annotation is bool
            else parameter
            for name, parameter in signature.parameters.items()
        ]
        added = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
            for key, annotation in _COMMON.items()
            if key not in signature.parameters
        ]

        @functools.wraps(function)
        def command(**kwargs: Any) -> None:
            common = {key: kwargs[key] if key in signature.parameters else kwargs.pop(key) for key in _COMMON}
            raise typer.Exit(_call(lambda: elsewhere.pick(function, remote)(**kwargs), **common))

        command.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *added], return_annotation=None
        )
        command.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
        context = {"ignore_unknown_options": True, "allow_interspersed_args": False} if passes_flags else None
        app.command(name, context_settings=context)(command)
        return command

    return register


def _call(call: Callable[[], Answer | None], *, json_: bool, quiet: bool, verbose: bool) -> int:
    """Run a verb's function and show what came of it; return the exit status."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, format="+ %(message)s", stream=sys.stderr
    )
    try:
        with steps.reporting(steps.Silent() if quiet else progress.reporter()):
            answer = call()
        if answer is not None and (json_ or not (quiet and answer.done)):
            _write(answer, json_=json_)
    except _NotWritten as error:
        # Where a document was to go, an error cannot go either.
        show_error(error, json_=False)
        return error.exit_code
    except CfctlError as error:
        show_error(error, json_=json_)
        return error.exit_code
    except KeyboardInterrupt:
        return interrupted(json_=json_)
    except BrokenPipeError:
        # The reader has seen enough (`cfctl ps | head`); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 (whatever it is, --json promises a document)
        return _show_bug(error, json_=json_)
    return answer.exit_code if answer is not None else 0


class _NotWritten(CfctlError):
    """Standard output takes no answer."""


def _write(answer: Answer, *, json_: bool) -> None:
    """Show an answer on standard output.

    :raises _NotWritten: if it cannot be written: the disk behind it is full, say.
    """
    if json_:
        print_json(answer.document)
        return
    with _writing():
        answer.show()
        if sys.stdout is not None:  # it is, when it was closed before we began
            sys.stdout.flush()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Say so if the block cannot write to standard output; nothing more is written to it then.

    :raises _NotWritten: the disk behind it is full, say.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise _NotWritten(f"the answer could not be written: {exc.strerror}") from exc


def interrupted(*, json_: bool) -> int:
    """Say that the verb was interrupted; return its exit status."""
    if json_:
        print_json({"error": {"code": "interrupted", "brief": "Interrupted", "details": None, "resolution": None}})
    else:
        print("Interrupted.", file=sys.stderr)
    return INTERRUPTED


def _show_bug(error: Exception, *, json_: bool) -> int:
    """Show an error that nobody foresaw, with all that helps to mend it."""
    import traceback

    traceback.print_exception(error, file=sys.stderr)
    brief = f"cfctl itself failed: {type(error).__name__}: {error}"
    show_error(CfctlError(brief, None, "This is a bug: please report it with the lines above."), json_=json_)
    return CfctlError.exit_code


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on one line of standard output.

    :raises CfctlError: if it cannot be written.
    """
    import json

    text = json.dumps(document, default=str)
    with _writing():
        print(text, flush=True)


def show_error(error: CfctlError, *, json_: bool) -> None:
    """Print an error for people on standard error, or as JSON on standard output."""
    if os.geteuid() == 0:
        error.resolution = error.resolution and error.resolution.replace("sudo ", "")
    if json_:
        # Where there is no room for a document, people are told.
        with contextlib.suppress(_NotWritten):
            print_json({"error": error.as_dict()})
            return
    colour = use_colour(sys.stderr)
    red, bold, plain = ("\x1b[31m", "\x1b[1m", "\x1b[0m") if colour else ("", "", "")
    print(f"{red}Error:{plain} {bold}{error.brief}{plain}", file=sys.stderr)
    for part in (error.details, as_typed(elsewhere.aimed(error.resolution) or "")):
        if part:
            print("\n".join(f"  {line}" for line in part.splitlines()), file=sys.stderr)


def as_typed(commands: str) -> str:
    """Return commands as they must be typed here: sudo finds no cfctl of a virtual environment by its name."""
    import shutil

    if "sudo cfctl" not in commands or shutil.which("cfctl", path=_SUDO_PATH):
        return commands
    called = Path(sys.argv[0])
    program = f"{called.absolute()}" if called.name == "cfctl" else f"{sys.executable} -m cfctl"
    return commands.replace("sudo cfctl", f"sudo {program}")


def answer_several(document: dict[str, Any], errors: list[CfctlError]) -> Answer:
    """Return the answer about several of a kind: what was done, and what could not be."""
    if errors:
        document["errors"] = [error.as_dict() for error in errors]

    def show() -> None:
        for error in errors:
            show_error(error, json_=False)

    return Answer(document, show, errors[0].exit_code if errors else 0)


def console() -> Console:
    """Return rich's drawing board on standard output, plain wherever :func:`use_colour` says no."""
    from rich.console import Console

    class Board(Console):
        def on_broken_pipe(self) -> None:
            # rich would end the whole program here, with status 1.
            raise BrokenPipeError

    # Into a pipe or a file nothing is wrapped: whoever reads it may search it.
    width = None if sys.stdout is not None and sys.stdout.isatty() else 200
    return Board(highlight=False, force_terminal=use_colour(sys.stdout), width=width)
