"""What Prometheus is told: devices by state, boots, calls, bytes, and what the devices take of the host."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import grpc
from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client import Counter as Metric
from prometheus_client.core import CounterMetricFamily

from cfctl.launch.boot import PHASES
from cfctl.wire.errors import SORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cfctl.relay.lists import Document

#: Seconds: the kernel of the embedded guest takes a quarter of one, Android's first boot without KVM many minutes.
_BOOT_BUCKETS = (0.25, 0.5, 1, 2, 5, 10, 20, 40, 60, 120, 300, 600)

#: A state is shown with 0 too, so that an alarm has something to look at.
_STATES = (
    *("preparing", "booting", "running", "suspended", "stopping", "stopped"),
    *("failed", "unreachable", "stale"),
)
#: What calls may end with. What a child prints is its user's, who could make up any number of words.
_RESULTS = {*SORTS, "ok", "cancelled", "bug", "aborted"} | {
    code.name.lower().replace("_", "-") for code in grpc.StatusCode
}
_PHASES = {phase.name for phase in PHASES}
_OTHER = "other"

_DOWN = ("stopped", "failed", "stale")


class Metrics:
    """The metrics of one relay."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        every = self.registry
        self._calls = Metric("cfctl_relay_calls", "Calls that have ended.", ["method", "result"], registry=every)
        self._bytes = Metric("cfctl_relay_bytes", "Bytes that callers sent and got.", ["direction"], registry=every)
        self._tunnel = Metric(
            "cfctl_relay_tunnel_bytes", "Bytes through tunnels.", ["service", "direction"], registry=every
        )
        self._phases = Histogram(
            "cfctl_boot_phase_seconds",
            "How long boots took to come to a phase from the one before, launches through the relay alone.",
            ["phase"],
            buckets=_BOOT_BUCKETS,
            registry=every,
        )
        self._devices = Gauge(
            "cfctl_devices", "Devices of the relay's user (as root: of the host).", ["state"], registry=every
        )
        self._instances = Gauge("cfctl_instances_up", "Instances of devices that are up.", registry=every)
        self._memory = Gauge("cfctl_devices_memory_bytes", "What the processes of devices hold.", registry=every)
        ProcessCollector(registry=self.registry)

    def gauge(self, name: str, help_: str, now: Callable[[], float]) -> None:
        """Show what a function returns."""
        Gauge(name, help_, registry=self.registry).set_function(now)

    def counters(self, name: str, help_: str, label: str, now: Callable[[], Mapping[str, int]]) -> None:
        """Show what somebody else counts."""
        self.registry.register(_Counted(name, help_, label, now))

    def call_ended(self, method: str, result: str, _seconds: float) -> None:
        """Count a call; methods that there are not have no name, or strangers could make up any number."""
        service, _, name = method.rpartition("/")
        self._calls.labels(
            f"{service.rpartition('.')[2]}/{name}" if method else "unknown", result if result in _RESULTS else _OTHER
        ).inc()

    def heard(self, received: int, sent: int) -> None:
        """Count bytes of callers."""
        if received:
            self._bytes.labels("received").inc(received)
        if sent:
            self._bytes.labels("sent").inc(sent)

    def tunnelled(self, service: str, direction: str, size: int) -> None:
        """Count bytes of a tunnel.

        :param direction: ``received`` from the caller, or ``sent`` there.
        """
        self._tunnel.labels(service, direction).inc(size)

    def phase(self, name: object, took: object) -> None:
        """Count a boot phase; what a child says that is none is left out."""
        if name not in _PHASES or not isinstance(took, int | float) or not 0 <= took < math.inf:
            return
        self._phases.labels(name).observe(took)

    def text(self, devices: Iterable[Document]) -> bytes:
        """Return all metrics as Prometheus reads them."""
        states: Counter[str] = Counter()
        instances = memory = 0
        for device in devices:
            states[device["state"]] += 1
            instances += len(device["instances"]) if device["state"] not in _DOWN else 0
            memory += device.get("memory_mb") or 0
        for state in {*_STATES, *states}:
            self._devices.labels(state).set(states[state])
        self._instances.set(instances)
        self._memory.set(memory << 20)
        return generate_latest(self.registry)


class _Counted:
    """A counter that somebody else keeps."""

    def __init__(self, name: str, help_: str, label: str, now: Callable[[], Mapping[str, int]]) -> None:
        self._about = (name, help_)
        self._label = label
        self._now = now

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Return it as it is now."""
        family = CounterMetricFamily(*self._about, labels=[self._label])
        for value, count in self._now().items():
            family.add_metric([value], count)
        yield family
