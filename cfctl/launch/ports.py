"""The ports of WebRTC: each instance has a slice of one range, as it has a port for ADB.

Upstream gives every instance the same 50 ports (15550 to 15599, launcher.md section 7), and whoever comes second
finds them taken. Here a range is cut into as many slices as there can be instances, so that a slice follows from
the number alone, on any host with the same setting. In a container, which has ports of its own, the numbers are
the same.

The default begins at upstream's first port and has 40 for each of 128 instances (a viewer takes one or two). 20669 is
the last, below the kernel's own range for outgoing connections (32768 on, ip(7)); nothing else of Cuttlefish's is in
between.
"""

from __future__ import annotations

from dataclasses import dataclass

from cfctl.instance import MAX_INSTANCES, Instance


@dataclass(frozen=True, slots=True)
class Range:
    """TCP and UDP ports, both ends included."""

    first: int
    last: int

    def __str__(self) -> str:
        """Return it as the launcher's flags have it."""
        return f"{self.first}:{self.last}"


def parse(text: str) -> Range:
    """Read the setting ``launch.webrtc_ports``, which is checked where it comes from (:mod:`cfctl.config`)."""
    first, _, last = text.partition(":")
    return Range(int(first), int(last))


def portion(instance: Instance, whole: Range) -> Range:
    """Return the slice of an instance; what is left over at the end of the range is nobody's."""
    width = (whole.last - whole.first + 1) // MAX_INSTANCES
    first = whole.first + (instance.number - 1) * width
    return Range(first, first + width - 1)


def flags(instances: list[Instance], whole: Range, *, known: frozenset[str]) -> list[str]:
    """Return the launcher's flags for the slices of a device's instances.

    :param known: the flags that the launcher knows; one that it does not know would stop it.
    """
    value = ",".join(str(portion(instance, whole)) for instance in instances)
    return [f"--{name}={value}" for name in ("tcp_port_range", "udp_port_range") if name in known]
