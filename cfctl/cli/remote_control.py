"""What is asked of VMs behind a relay: the twins of control, display, suspend, resume and powerbtn."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import disk
from cfctl.cli import control as here
from cfctl.cli import device, elsewhere
from cfctl.cli.common import Answer, answer_several
from cfctl.cli.display import listed, size_of
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from cfctl.control.operations import Operation
    from cfctl.remote.channel import Relay


def control(*, target: str, words: list[str] | None, timeout: float | None) -> Answer:
    """Ask the VM of a device for something."""
    from cfctl.control import operations

    if not words:
        return _listed(target)
    operation = operations.from_words(here.typed(words))
    here.require_control(operation)
    result = _do(target, operation, seconds=timeout)
    document = {"target": target, "operation": operation.name, "result": result}
    return Answer(document, lambda: here.show(target, operation, result))


def _listed(target: str) -> Answer:
    """Answer with what there is for a caller from elsewhere; which of it that VM can do, its own host knows."""
    from cfctl.control import operations
    from cfctl.remote.control import CALLS

    rows = [
        {"operation": spec.name, "usage": operations.usage(spec), "summary": spec.summary}
        for spec in operations.TABLE.values()
        if spec.control and spec.name in CALLS
    ]

    def show() -> None:
        print("Through a relay:")
        for row in rows:
            print(f"  {row['usage']:<34} {row['summary']}")

    return Answer({"target": target, "operations": rows}, show)


def suspend(*, names: list[str], timeout: int | None) -> Answer:
    """Stop the processors of devices."""
    return _each("suspend", names, timeout)


def resume(*, names: list[str], timeout: int | None) -> Answer:
    """Let suspended devices go on."""
    return _each("resume", names, timeout)


def powerbtn(*, target: str, timeout: int | None) -> Answer:
    """Press the power button."""
    found = _pressed("powerbtn", target, timeout)
    return Answer(found, lambda: print(f"The power button of {target} was pressed."))


def display(*, target: str, action: str, argument: str | None, dpi: int, refresh_rate: int, number: int) -> Answer:
    """List the displays of an instance, add or remove one, or save what one shows."""
    from cfctl.control.operations import operation

    if action == "screenshot" and argument is not None:
        png: bytes = _do(target, operation("display.screenshot", {"display": number}))["png"]
        return _picture(target, png, number, argument)
    if action == "add" and argument is not None:
        width, height = size_of(argument)
        values = {"width": width, "height": height, "dpi": dpi, "refresh-rate": refresh_rate}
        _do(target, operation("display.add", values))
    elif action == "remove" and argument is not None:
        _do(target, operation("display.remove", {"display": argument}))
    elif action != "list" or argument is not None:
        raise UsageError(
            f"display {target} {action} makes no sense so", None, "See what it takes: cfctl display --help"
        )
    return listed(target, _do(target, operation("display.list"))["displays"])


def _picture(target: str, png: bytes, number: int, file: str) -> Answer:
    document: dict[str, Any] = {"target": target, "display": number, "bytes": len(png)}
    if file == "-":
        document |= {"screenshot": "-", "picture": base64.b64encode(png).decode()}

        def show() -> None:
            sys.stdout.buffer.write(png)

        return Answer(document, show)
    path = Path(file).expanduser().absolute()
    if path.suffix.lower() != ".png":
        raise UsageError(f"{file}: through a relay a picture is a PNG", None, f"Save it as {path.stem}.png")
    try:
        path.write_bytes(png)
    except OSError as exc:
        raise disk.error(path, exc) from exc
    return Answer(document | {"screenshot": str(path)}, lambda: print(path))


def _each(name: str, names: list[str], timeout: int | None) -> Answer:
    devices: list[dict[str, Any]] = []

    def one(target: str) -> list[str]:
        devices.append(_pressed(name, target, timeout))
        return []

    errors = device.each(name, names, one)
    return answer_several({"devices": devices}, errors)


def _pressed(name: str, target: str, timeout: int | None) -> dict[str, Any]:
    """Have something done that changes the device; return what it is then."""
    from cfctl.control.operations import operation
    from cfctl.remote import calls, control

    async def ask(relay: Relay) -> dict[str, Any]:
        await control.perform(relay, target, operation(name), seconds=timeout)
        return await calls.device(relay, target)

    found: dict[str, Any] = elsewhere.ask(ask)
    return found


def _do(target: str, operation: Operation, *, seconds: float | None = None) -> dict[str, Any]:
    from cfctl.remote import control

    async def ask(relay: Relay) -> dict[str, Any]:
        return await control.perform(relay, target, operation, seconds=seconds)

    found: dict[str, Any] = elsewhere.ask(ask)
    return found
