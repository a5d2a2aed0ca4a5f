"""Errors of ours as gRPC has them, and back: whoever calls from elsewhere reads what he would have read at a shell.

The status tells programs of any language what sort of failure it is; the whole error (cfctl.v1.Error) goes along in
the trailing metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from cfctl import errors
from cfctl.errors import CfctlError, FromElsewhere
from cfctl.v1 import device_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc.aio

#: Where the whole error travels (``-bin``: gRPC carries any bytes there).
KEY = "cfctl-error-bin"

#: HTTP/2 peers take 8 KiB of headers unless they say otherwise (grpc.max_metadata_size), in base64, which makes
#: four bytes out of three; the status message and the rest must fit too.
_MOST_DETAILS = 4000
_MOST_LINE = 500

_Code = grpc.StatusCode

#: What sort of failure it is, by the code of the error: that is all that is known of one that a child has printed.
#: Every error of cfctl's is here; a word that is not is of a later version.
SORTS = {
    CfctlError.code: _Code.UNKNOWN,
    FromElsewhere.code: _Code.UNKNOWN,
    **dict.fromkeys(("usage", "engine-elsewhere", "unsafe-archive"), _Code.INVALID_ARGUMENT),
    **dict.fromkeys(("no-such-device", "no-such-container", "no-such-context"), _Code.NOT_FOUND),
    **dict.fromkeys(
        ("name-taken", "container-name-taken", "already-served", "already-watched"), _Code.ALREADY_EXISTS
    ),
    # As it is now it cannot be done; trying again changes nothing.
    **dict.fromkeys(
        (
            *("not-running", "host-lacks", "missing-command", "devices-up", "foreign-object", "subnet-clash"),
            *("not-a-pod", "wrong-processor", "image-unavailable", "guest-image-unavailable", "relay-untrusted"),
            *("vm-cannot", "vm-refused", "vm-unreachable", "qmp-refused", "monitor-refused", "engine-refused"),
        ),
        _Code.FAILED_PRECONDITION,
    ),
    # Nothing was done; it may be another time.
    **dict.fromkeys(
        (
            *("vm-busy", "qmp-failed", "engine-unreachable", "login-failed", "relay-unreachable", "relay-leaving"),
            *("no-operator", "stream-failed"),
        ),
        _Code.UNAVAILABLE,
    ),
    **dict.fromkeys(("timed-out", "vm-silent"), _Code.DEADLINE_EXCEEDED),
    **dict.fromkeys(("number-taken", "relay-busy"), _Code.RESOURCE_EXHAUSTED),
    **dict.fromkeys(("launch-failed", "device-died"), _Code.ABORTED),
    **dict.fromkeys(("not-allowed", "needs-root"), _Code.PERMISSION_DENIED),
    "token-refused": _Code.UNAUTHENTICATED,
    "command-failed": _Code.INTERNAL,
    "damaged-record": _Code.DATA_LOSS,
    "interrupted": _Code.CANCELLED,
}

#: What a call ends with that failed without an error of ours: by another server's word, or gRPC's own.
_EXITS: dict[grpc.StatusCode, type[CfctlError]] = {
    _Code.INVALID_ARGUMENT: errors.UsageError,
    _Code.FAILED_PRECONDITION: errors.NotRunning,
    _Code.DEADLINE_EXCEEDED: errors.DeadlinePassed,
}


def sort(code: str) -> grpc.StatusCode:
    """Return the status for the code of an error; a word that is not ours is UNKNOWN."""
    return SORTS.get(code, _Code.UNKNOWN)


def from_document(document: Mapping[str, Any], exit_code: int) -> CfctlError:
    """Return the error that a verb wrote with ``--json``.

    :param document: what stands under ``error`` (docs/schema/error.json).
    :param exit_code: what the verb ended with.
    """
    return FromElsewhere(
        str(document.get("brief")),
        document.get("details"),
        document.get("resolution"),
        code=str(document.get("code")),
        exit_code=exit_code,
    )


def message(error: CfctlError) -> device_pb2.Error:
    """Return an error as it travels: what does not fit into the headers is cut out of the middle of its details."""
    return device_pb2.Error(
        code=error.code,
        brief=_cut(error.brief, _MOST_LINE),
        details=_cut(error.details, _MOST_DETAILS),
        resolution=_cut(error.resolution, _MOST_LINE),
        exit_code=error.exit_code,
    )


def trailing(error: CfctlError) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata of a call that failed with an error."""
    return ((KEY, message(error).SerializeToString()),)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: CfctlError) -> NoReturn:
    """End a call with an error; returns only by raising."""
    await context.abort(sort(error.code), _ascii(_cut(error.brief, _MOST_LINE) or ""), trailing(error))
    raise AssertionError("abort returns only by raising")


def from_call(failed: grpc.aio.AioRpcError, address: str) -> CfctlError:
    """Return what a call that failed says.

    :param address: of the relay that was called, to be named where nobody answers.
    """
    for key, value in failed.trailing_metadata() or ():
        if key == KEY:
            try:
                told = device_pb2.Error.FromString(value if isinstance(value, bytes) else value.encode())
            except DecodeError:
                break
            return FromElsewhere(
                told.brief,
                told.details if told.HasField("details") else None,
                told.resolution if told.HasField("resolution") else None,
                code=told.code or CfctlError.code,
                exit_code=told.exit_code or CfctlError.exit_code,
            )
    code, said = failed.code(), failed.details() or ""
    if code is _Code.UNAVAILABLE:
        return errors.RelayUnreachable(address, said or "The connection broke.")
    if code is _Code.DEADLINE_EXCEEDED:
        return errors.DeadlinePassed(f"the relay at {address} did not answer in time", said or None)
    kind = _EXITS.get(code, CfctlError)
    return FromElsewhere(
        f"the relay at {address} refused: {said or code.name}",
        f"Its status is {code.name}.",
        code=kind.code,
        exit_code=kind.exit_code,
    )


def _cut(text: str | None, most: int) -> str | None:
    """Shorten a text to so many bytes; its beginning and its end tell most."""
    if text is None or len(raw := text.encode()) <= most:
        return text
    half = most // 2 - 10
    return f"{raw[:half].decode(errors='ignore')}\n[...]\n{raw[-half:].decode(errors='ignore')}"


def _ascii(text: str) -> str:
    """Return a text on one line: what is in a status message is for programs that do not know our errors."""
    return " ".join(text.split())
