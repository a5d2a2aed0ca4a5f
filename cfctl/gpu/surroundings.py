"""What stands around the drivers and decides nothing: access, libraries and containers, for `cfctl gpu probe`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl.gpu import containers, groups, probe

if TYPE_CHECKING:
    from cfctl.gpu.containers import Containers
    from cfctl.gpu.groups import Access
    from cfctl.gpu.libraries import Library


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What was found.

    :param access: device files and who may open them.
    :param libraries: graphics libraries and registered drivers.
    :param containers: whether containers can be given the GPU.
    """

    access: tuple[Access, ...]
    libraries: tuple[Library, ...]
    containers: Containers


def read() -> Surroundings:
    """Look around on this host; never raises for what is found."""
    return Surroundings(groups.read(), probe.libraries(), containers.read())
