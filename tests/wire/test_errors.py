"""Errors cross a real gRPC connection, and read the same at the other end."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cfctl
from cfctl import errors
from cfctl.control import faults
from cfctl.errors import CfctlError, FromElsewhere
from cfctl.v1 import devices_pb2, devices_pb2_grpc
from cfctl.wire import errors as wire


class Failing(devices_pb2_grpc.DevicesServicer):
    """Answers everything with one error."""

    def __init__(self, error: CfctlError) -> None:
        self._error = error

    async def Get(self, request: Any, context: Any) -> Any:
        await wire.abort(context, self._error)


async def call(directory: Path, error: CfctlError) -> tuple[grpc.StatusCode, CfctlError]:
    """Have a server fail with an error; return the status, and what comes out here."""
    server = grpc.aio.server()
    devices_pb2_grpc.add_DevicesServicer_to_server(Failing(error), server)
    address = f"unix:{directory}/s"
    server.add_insecure_port(address)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await devices_pb2_grpc.DevicesStub(channel).Get(devices_pb2.GetRequest(name="phone"))
            return caught.value.code(), wire.from_call(caught.value, address)
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("no such mode", "why", "what"), grpc.StatusCode.INVALID_ARGUMENT),
        (
            errors.NotRunning("phone is stopped", None, "Boot it: cfctl restart phone"),
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
        (errors.NoSuchDevice("phone", ["tablet"]), grpc.StatusCode.NOT_FOUND),
        (errors.NameTaken("phone", "running"), grpc.StatusCode.ALREADY_EXISTS),
        (errors.NeedsRoot("host setup"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.MissingCommand("adb", "apt install adb"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.DeadlinePassed("too late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.LaunchFailed("it hangs", "line one\nline two – ü", phase="kernel"), grpc.StatusCode.ABORTED),
        (errors.SubnetClash("they clash"), grpc.StatusCode.FAILED_PRECONDITION),
        (faults.VmRefused("it did not", reply="Err"), grpc.StatusCode.FAILED_PRECONDITION),
        (faults.VmBusy("somebody asks it"), grpc.StatusCode.UNAVAILABLE),
        (faults.VmSilent("no answer"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (FromElsewhere("theirs", code="name-taken", exit_code=1), grpc.StatusCode.ALREADY_EXISTS),
        (FromElsewhere("of a later version", code="new-word", exit_code=4), grpc.StatusCode.UNKNOWN),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_what_is_said_at_the_other_end_is_said_here(tmp_path: Path, error: CfctlError, code: grpc.StatusCode) -> None:
    status, here = asyncio.run(call(tmp_path, error))
    assert status is code
    assert (here.as_dict(), here.exit_code) == (error.as_dict(), error.exit_code)


def family(root: type[CfctlError] = CfctlError) -> Iterator[type[CfctlError]]:
    yield root
    for child in root.__subclasses__():
        yield from family(child)


def test_every_error_has_its_status() -> None:
    """Whichever module has it: the relay knows what a child has printed by its word alone."""
    for module in pkgutil.walk_packages(cfctl.__path__, "cfctl."):
        if not module.name.startswith(("cfctl.v1", "cfctl.gpu.ask_", "cfctl.__main__", "cfctl.docker.init")):
            importlib.import_module(module.name)
    ours = {kind.code for kind in family() if kind.__module__.startswith("cfctl.")}
    assert len(ours) > 40
    assert ours <= set(wire.SORTS), "cfctl/wire/errors.py does not know them"
    assert set(wire.SORTS) - ours <= {"interrupted"}, "no error has these words"
    unknown = {code for code, status in wire.SORTS.items() if status is grpc.StatusCode.UNKNOWN}
    assert unknown == {CfctlError.code, FromElsewhere.code}


def test_a_huge_error_arrives_with_its_beginning_and_its_end(tmp_path: Path) -> None:
    details = "first line\n" + "ü" * 200_000 + "\nlast line"
    _, here = asyncio.run(call(tmp_path, errors.LaunchFailed("b" * 9000, details, "r" * 9000, phase="vm")))
    assert here.code == "launch-failed"
    assert here.details is not None
    assert here.details.startswith("first line\n")
    assert here.details.endswith("\nlast line")
    assert "\n[...]\n" in here.details


@given(st.text(), st.none() | st.text(), st.none() | st.text())
def test_no_error_is_larger_than_headers_may_be(brief: str, details: str | None, resolution: str | None) -> None:
    error = CfctlError(brief * 50, details and details * 500, resolution and resolution * 50)
    ((key, raw),) = wire.trailing(error)
    assert key == "cfctl-error-bin"
    assert len(raw) * 4 / 3 < 7000


def test_nobody_answers(tmp_path: Path) -> None:
    async def ask() -> CfctlError:
        address = f"unix:{tmp_path}/none"
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await devices_pb2_grpc.DevicesStub(channel).List(devices_pb2.ListRequest())
        return wire.from_call(caught.value, address)

    error = asyncio.run(ask())
    assert isinstance(error, errors.RelayUnreachable)
    assert error.brief == f"no relay answers at unix:{tmp_path}/none"
    assert "cfctl relay status" in (error.resolution or "")


def test_a_verbs_json_is_an_error_again() -> None:
    lost = errors.NoSuchDevice("phone", [])
    again = wire.from_document(lost.as_dict(), 1)
    assert (again.as_dict(), again.exit_code) == (lost.as_dict(), 1)
    assert wire.sort(again.code) is grpc.StatusCode.NOT_FOUND
