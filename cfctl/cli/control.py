"""The VM's own sockets: control, console."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli import sitting
from cfctl.cli.common import Answer, verb
from cfctl.cli.complete import operation_words
from cfctl.cli.lifecycle import Target
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cfctl.control.operations import Operation


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    verb(app, "control", remote="cfctl.cli.remote_control:control")(control)
    verb(app, "console", remote="cfctl.cli.remote_access:console")(console)


def control(
    *,
    target: Target,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to do, and its values [default: list what there is].",
            metavar="[OPERATION] [VALUES]",
            autocompletion=operation_words,
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that it may take.", min=0.1)] = None,
) -> Answer:
    """Ask the VM of a device for something.

    Memory, battery, USB, disks, swapping, processors, keys.

    Without an operation it lists all of them, with their values, and which of them this VM can do. docs/control.md
    tells about each. Values may be named (wait=true); sizes are written as 512M. `text -` types what standard input
    has, which nobody sees among the arguments of programs.

    \b
    Examples:
      cfctl control phone
      cfctl control phone balloon stats --json
      cfctl control phone balloon set 512M wait
      cfctl control phone battery capacity 15
      cfctl control phone usb attach /dev/bus/usb/001/004
      cfctl control phone disk resize 0 16G
      cfctl control phone vcpus
      cfctl control phone/2 key ctrl-alt-delete
      cfctl control phone text 'echo hello'
      cfctl control phone text - <password
      cfctl control phone raw '{"execute": "query-status"}'
    """
    from cfctl.control import operations
    from cfctl.launch import vm

    if not words:
        return _listed(target)
    operation = operations.from_words(typed(words))
    require_control(operation)
    result = vm.do(target, operation, seconds=timeout)
    document = {"target": target, "operation": operation.name, "result": result}
    return Answer(document, lambda: show(target, operation, result))


def typed(words: list[str]) -> list[str]:
    """Return the words of an operation; a text that is not among them, for everybody to see, is read here."""
    if words != ["text", "-"]:
        return words
    said = sys.stdin.buffer.read().decode(errors="replace")
    return ["text", f"text={said}"]


def require_control(operation: Operation) -> None:
    """Make sure that an operation is one of this verb's.

    :raises UsageError: if it has a verb of its own.
    """
    if not operation.spec.control:
        raise UsageError(
            f"{' '.join(operation.spec.words)} is a verb of its own", None, f"See: cfctl {operation.spec.words[0]} -h"
        )


def _listed(target: str) -> Answer:
    """Answer with what there is, and what this VM can do of it."""
    from cfctl.control import operations
    from cfctl.launch import vm

    _, found = vm.target(target)
    specs = [spec for spec in operations.TABLE.values() if spec.control]
    rows = [
        {
            "operation": spec.name,
            "usage": operations.usage(spec),
            "summary": spec.summary,
            "can": spec.can(found.manager),
            "why_not": None if spec.can(found.manager) else spec.cannot[found.manager].reason,
        }
        for spec in specs
    ]

    def show() -> None:
        print(f"The VM manager of {target} is {found.manager.called}.")
        for row in rows:
            if row["can"]:
                print(f"  {row['usage']:<34} {row['summary']}")
        for why in dict.fromkeys(row["why_not"] for row in rows if not row["can"]):
            print(f"not here: {why}")
            for row in rows:
                if row["why_not"] == why:
                    print(f"  {row['usage']:<34} {row['summary']}")

    return Answer({"target": target, "vm_manager": found.manager.value, "operations": rows}, show)


def show(target: str, operation: Operation, result: Mapping[str, Any]) -> None:
    """Show to people what came of an operation."""
    if operation.name == "raw":
        import json

        print(json.dumps(result["reply"], indent=2))
        return
    if not result:
        print(f"{target}: {' '.join(operation.spec.words)} is done")
    for key, value in result.items():
        if isinstance(value, list):
            _show_list(key, value)
        elif isinstance(value, dict):
            for name, number in value.items():
                print(f"{name.replace('_', ' '):<24} {number}")
        else:
            print(f"{key.replace('_', ' '):<24} {value}")


def _show_list(key: str, rows: list[Any]) -> None:
    if not rows:
        print(f"no {key.replace('_', ' ')}")
    for row in rows:
        print("  ".join(f"{name.replace('_', ' ')} {_number(name, value)}" for name, value in row.items()))


def _number(name: str, value: Any) -> str:
    return f"{value:04x}" if name in ("vendor_id", "product_id") else str(value)


def console(*, target: Target, json_: Annotated[bool, typer.Option("--json", hidden=True)] = False) -> None:
    """Sit at the serial console of a device. Ctrl-] leaves it; the guest goes on.

    A serial line carries no window size: tell the guest with stty, or have it ask with resize. The embedded guest
    always has a console, a device of upstream's if it was launched with --console=true. What it wrote before is in
    `cfctl logs NAME --which console`.

    \b
    Examples:
      cfctl console phone
      cfctl console phone/2
      cfctl launch phone -- --console=true
    """
    from cfctl.control import sync
    from cfctl.launch import manage

    sitting.require_terminal(target, json_=json_)
    sync.run(sitting.sit(target, manage.console(target)))
    sitting.left(target)
