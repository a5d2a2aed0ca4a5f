"""A device's screen without a window: one picture, a film, or numbers, by way of the operator or relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cfctl import steps
from cfctl.control import sync
from cfctl.errors import NoSuchDevice, NotRunning, UsageError
from cfctl.launch import census, lifecycle, manage, runtime_config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from cfctl.viewer.signalling import Operator
    from cfctl.viewer.stream import Viewer


def picture(target: str, path: Path, *, operator: Operator) -> dict[str, Any]:
    """Save what a display shows as PNG; return its size.

    :param target: ``NAME`` or ``NAME/2``; of an operator elsewhere also what a device is called there.
    :param operator: where the device is registered.
    :raises CfctlError: if no picture comes; nothing is left then.
    """
    from cfctl.viewer import keep

    if path.suffix.lower() != ".png":
        raise UsageError(f"{path.name}: a picture ends in .png")
    return _watch(target, operator, "fetch a picture", lambda viewer: keep.png(viewer, path))


def film(target: str, path: Path, seconds: float, *, operator: Operator) -> dict[str, Any]:
    """Save what a display shows for some seconds as WebM; return its size and the numbers.

    :raises CfctlError: as :func:`picture`.
    """
    from cfctl.viewer import keep

    if path.suffix.lower() != ".webm":
        raise UsageError(f"{path.name}: a film ends in .webm")
    return _watch(target, operator, "film the screen", lambda viewer: keep.film(viewer, path, seconds))


def numbers(target: str, seconds: float, *, operator: Operator) -> dict[str, Any]:
    """Watch a display for some seconds; return what came.

    :raises CfctlError: if nothing comes.
    """
    from cfctl.viewer import keep

    return _watch(target, operator, "watch the screen", lambda viewer: keep.numbers(viewer, seconds))


def _watch(
    target: str,
    operator: Operator,
    what: str,
    work: Callable[[Viewer], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    try:
        device = device_id(target)
    except (NoSuchDevice, UsageError, NotRunning):
        # One of the same name may be another's there.
        if not operator.elsewhere:
            raise
        device = target
    with steps.step(what):
        from cfctl.viewer import stream

        async def watch() -> dict[str, Any]:
            async with stream.watching(operator, device) as viewer:
                return await work(viewer)

        return sync.run(watch())


def device_id(target: str) -> str:
    """Return what the streamer of an instance registers as.

    :raises NotRunning: if the device is not up.
    """
    name, position = manage.target(target)
    with census.opened(name) as record:
        device = lifecycle.up(name)
        lifecycle.running(device)
        instance = manage.instance_of(device, position)
        said = runtime_config.read(record.home / runtime_config.NAME)
    known = said.instances.get(instance.number) if said else None
    return (known.webrtc_device_id if known else "") or instance.id
