"""What answers behind the front, put together: one worker, one gate, every service."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cfctl.errors import NotRunning
from cfctl.relay import caller as callers
from cfctl.relay.controls import Control
from cfctl.relay.devices import Devices
from cfctl.relay.front import Front
from cfctl.relay.gate import Gate
from cfctl.relay.host import Host
from cfctl.relay.itself import Relay
from cfctl.relay.lists import Lists
from cfctl.relay.metrics import Metrics
from cfctl.relay.tunnel import Journal, Tunnel
from cfctl.relay.ways import Ways
from cfctl.relay.worker import Worker
from cfctl.v1 import (
    control_pb2,
    control_pb2_grpc,
    devices_pb2,
    devices_pb2_grpc,
    host_pb2,
    host_pb2_grpc,
    relay_pb2,
    relay_pb2_grpc,
    tunnel_pb2,
    tunnel_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cfctl.relay.audit import Audit
    from cfctl.relay.caller import Caller
    from cfctl.relay.limits import Limits
    from cfctl.relay.people import User
    from cfctl.relay.tokens import Store
    from cfctl.relay.web.composition import WebSide

_SERVICES = (
    devices_pb2.DESCRIPTOR.services_by_name["Devices"].full_name,
    host_pb2.DESCRIPTOR.services_by_name["Host"].full_name,
    tunnel_pb2.DESCRIPTOR.services_by_name["Tunnel"].full_name,
    control_pb2.DESCRIPTOR.services_by_name["Control"].full_name,
    relay_pb2.DESCRIPTOR.services_by_name["Relay"].full_name,
)


class _Tunnels(Journal):
    """Has tunnels written into the audit log: when they begin, and with the line of their call when they end."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def opened(self, service: str) -> None:
        """Write down the beginning."""
        self._gate.began(service)

    def closed(self, service: str, received: int, sent: int, reason: str | None) -> None:
        """Have the call's own line say what it was."""
        more = {"service": service, "received": received, "sent": sent}
        callers.about().more.update(more if reason is None else {**more, "reason": reason})


class Composition:
    """All parts of a relay but its sockets.

    :param own: the user that the relay runs as.
    :param inside: the unix socket that gRPC listens on; nobody else can reach it.
    :param nowhere: an empty directory.
    """

    def __init__(
        self, *, own: User, inside: Path, nowhere: Path, tokens: Store, audit: Audit, limits: Limits
    ) -> None:
        self.own = own
        self.tokens = tokens
        self.audit = audit
        #: Where browsers look; none if the relay shows no screens.
        self.screens: WebSide | None = None
        self.metrics = Metrics()
        #: Where callers are heard; whoever opens a listener says so here.
        self.listeners: list[Mapping[str, str]] = []
        self.worker = Worker(limits.children, nowhere)
        self.lists = Lists(self.worker)
        self.front = Front(inside, limits, self.metrics.heard)
        self.gate = Gate(
            self.front.connection,
            own=own,
            tokens=tokens,
            audit=audit,
            limits=limits,
            done=self.metrics.call_ended,
        )
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(interceptors=[self.gate], options=limits.grpc_options())
        devices_pb2_grpc.add_DevicesServicer_to_server(
            Devices(self.worker, self.lists, self.metrics.phase), self._server
        )
        control_pb2_grpc.add_ControlServicer_to_server(Control(self.worker, self.lists), self._server)
        host_pb2_grpc.add_HostServicer_to_server(Host(self.worker), self._server)
        self.ways = Ways(self.lists, nowhere)
        self.tunnels = Tunnel(self.ways, heard=self.metrics.tunnelled, drop=self._drop, journal=_Tunnels(self.gate))
        tunnel_pb2_grpc.add_TunnelServicer_to_server(self.tunnels, self._server)
        itself = Relay(
            store=tokens,
            front=self.front,
            gate=self.gate,
            worker=self.worker,
            listeners=self.listeners,
            link=self._link,
        )
        relay_pb2_grpc.add_RelayServicer_to_server(itself, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        self._server.add_insecure_port(f"unix:{inside}")
        self._measure()
        self._looking: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Begin to answer; nobody can call before the front listens."""
        await self._server.start()
        # Everybody may connect who may enter the directory: nobody else.
        for name in ("", *_SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._looking = asyncio.create_task(self.gate.watch())

    async def _link(self, caller: Caller, name: str, role: str) -> relay_pb2.Link:
        """Return a link to a device's screen.

        :raises NotRunning: if the relay shows none.
        """
        if self.screens is None:
            raise NotRunning(
                "the relay shows no screens",
                None,
                "Start it with an address for browsers: cfctl relay serve --web ADDR:PORT",
            )
        return await self.screens.link(caller, name, role)

    def _drop(self, peer: str) -> None:
        """Close the connection of a caller who reads nothing any more."""
        if (connection := self.front.connection(peer)) is not None:
            connection.close()

    def _measure(self) -> None:
        """Have the metrics show what the parts count themselves."""
        show = self.metrics.gauge
        show("cfctl_relay_connections", "Connections that are open.", lambda: len(self.front))
        show("cfctl_relay_calls_open", "Calls that are being answered.", lambda: self.gate.calls)
        show("cfctl_relay_children", "Programs that calls have started and that run.", lambda: self.worker.children)
        self.metrics.counters(
            "cfctl_relay_refused", "Connections turned away or ended.", "reason", lambda: self.front.refused
        )

    async def metrics_text(self) -> bytes:
        """Return the metrics as Prometheus reads them."""
        return self.metrics.text(await self.lists.of(self.own))

    def may_measure(self, secret: str) -> bool:
        """Tell whether a token may see the metrics: they are about all devices of the relay's own user."""
        token = self.tokens.recognize(secret)
        return token is not None and token.user == self.own.name and token.devices == "*"

    async def stop(self, seconds: float) -> None:
        """Come to an end: no new calls, what goes on for ever ends with a reason, the rest has some time.

        :param seconds: for calls that come to an end by themselves.
        """
        if self._stopped:
            return
        self.front.leave()
        if self.screens is not None:
            # Pages go on by themselves for ever, and what settles below waits for the consoles in them.
            await self.screens.close()
        await self._health.enter_graceful_shutdown()
        await self.gate.leave(seconds)
        await self.worker.settle()
        await self.ways.settle()
        self._stopped = True
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        await self._server.stop(0.5)
        await self.front.close()
