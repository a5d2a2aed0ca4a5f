"""The service Host: how the host of the devices is; nothing here changes it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict

import cfctl
from cfctl.relay import caller as callers
from cfctl.relay.shared import Shared
from cfctl.v1 import host_pb2, host_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    from cfctl.relay.worker import Worker

    Context = grpc.aio.ServicerContext[Any, Any]

_STATUS_S = 60.0

#: A trial boot under KVM is among what it asks.
_DOCTOR_S = 180.0

#: The exit status of what would have something to do, and of a host that lacks something: no errors here.
_DIFFERS, _LACKS = 3, 4


#: Many who ask at once cost one look.
_FRESH_S = 2.0


class Host(host_pb2_grpc.HostServicer):
    """Answers the calls."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._statuses: Shared[dict[str, Any]] = Shared(_FRESH_S)
        self._reports: Shared[dict[str, Any]] = Shared(_FRESH_S)

    async def Status(self, request: host_pb2.HostStatusRequest, context: Context) -> host_pb2.HostStatus:
        """Tell whether the host's network is ready."""
        del request, context
        user = callers.current().user
        verb = ["host", "status"]
        document = await self._statuses.get(
            user.uid, lambda: self._worker.document(user, verb, seconds=_STATUS_S, only=_DIFFERS)
        )
        answer = host_pb2.HostStatus(hostname=socket.gethostname(), version=cfctl.__version__)
        return ParseDict(document, answer, ignore_unknown_fields=True)

    async def Doctor(self, request: host_pb2.DoctorRequest, context: Context) -> host_pb2.DoctorReport:
        """Tell what devices lack on this host."""
        del request, context
        user = callers.current().user
        verb = ["host", "doctor"]
        document = await self._reports.get(
            user.uid, lambda: self._worker.document(user, verb, seconds=_DOCTOR_S, only=_LACKS)
        )
        return ParseDict(document, host_pb2.DoctorReport(), ignore_unknown_fields=True)
