"""Devices for tests of what only looks at them."""

from __future__ import annotations

from typing import Any

from cfctl.launch.observe import Device, Process, State
from cfctl.launch.registry import Record, Request


def record(name: str = "phone", numbers: tuple[int, ...] = (1,), **fields: Any) -> Record:
    """Return a record; fields that a request has go into the request."""
    wanted = {key: fields.pop(key) for key in list(fields) if key in Request.__struct_fields__}
    wanted.setdefault("num_instances", len(numbers))
    return Record(
        name=name,
        owner="me",
        created_at="2026-01-01T00:00:00.000Z",
        request=Request(**{"host_package": "/opt/cf", **wanted}),
        numbers=numbers,
        gpu_mode="none",
        gpu_reason="",
        **fields,
    )


def device(state: State, *, processes: tuple[Process, ...] = (), **fields: Any) -> Device:
    """Return a device in a state."""
    return Device(record(**fields), state, processes)
