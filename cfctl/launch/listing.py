"""Every device on this host, whoever started it: what ``cfctl ps`` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cfctl.errors import NoSuchDevice
from cfctl.launch import foreign, foreign_facts, observe, registry
from cfctl.launch.foreign import Foreign
from cfctl.launch.observe import Device
from cfctl.launch.procs import Look

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A device of this user's cfctl, or another one.
Listed: TypeAlias = Device | Foreign


def everything() -> list[Listed]:
    """Return all devices on this host at one moment: this user's by name, then the others by number."""
    at = Look()
    own = observe.devices(at)
    return [*own, *foreign_facts.devices(own, at)]


def find(name: str, position: int | None = None) -> Listed:
    """Return one device, or one instance of it, whoever started it.

    :param position: of the instance, the first is 1; None is the whole device.
    :raises NoSuchDevice: if there is none of that name.
    :raises UsageError: if it has fewer instances.
    """
    try:
        return observe.device(name) if position is None else observe.one_instance(name, position)
    except NoSuchDevice:
        others = [device for device in everything() if isinstance(device, Foreign)]
        found = next((device for device in others if device.name == name), None)
        if found is None:
            raise _nobody(name, others) from None
        return found if position is None else foreign.one_instance(found, position)


def _nobody(name: str, others: Sequence[Foreign]) -> NoSuchDevice:
    return NoSuchDevice(name, [*(record.name for record in registry.load_all()), *(other.name for other in others)])
