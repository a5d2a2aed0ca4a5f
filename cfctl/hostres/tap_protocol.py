"""What is said over the tap service's socket: one request with one descriptor, one answer.

A message is one packet (SOCK_SEQPACKET, unix(7)) of JSON. The descriptor (SCM_RIGHTS) is of the instance number's
locked lock file: it proves that the caller holds the number (launcher.md section 16).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cfctl.errors import (
    CfctlError,
    CommandFailed,
    DeadlinePassed,
    DevicesUp,
    ForeignObject,
    HostLacks,
    NumberTaken,
    SubnetClash,
    UsageError,
)
from cfctl.instance import MAX_INSTANCES

#: A request is below 60 bytes; an answer carries at most an error's three texts.
REQUEST_BYTES = 1024
ANSWER_BYTES = 65536

#: Errors that travel; one of another sort arrives as a plain CfctlError. Those are left out that are made of more
#: than three texts.
_ERRORS = {
    kind.code: kind
    for kind in (DeadlinePassed, DevicesUp, ForeignObject, HostLacks, NumberTaken, SubnetClash, UsageError)
}


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks for."""

    action: Literal["make", "remove"]
    number: int
    version: Literal[1] = 1


class Problem(msgspec.Struct, frozen=True):
    """An error, as ``--json`` shows it too."""

    code: str
    brief: str
    details: str | None = None
    resolution: str | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the service says: nothing but that it is done, or why not."""

    error: Problem | None = None


def encode(message: Request | Answer) -> bytes:
    """Return a message as bytes."""
    return msgspec.json.encode(message)


def decode_request(raw: bytes) -> Request:
    """Return the request in a packet.

    :raises UsageError: if it is none.
    """
    try:
        request = msgspec.json.decode(raw, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise UsageError("this is no request to the tap service", str(exc)) from exc
    if not 1 <= request.number <= MAX_INSTANCES:
        raise UsageError(f"instance number {request.number} is out of range", f"It must be 1 to {MAX_INSTANCES}.")
    return request


def answer(error: CfctlError | None = None) -> Answer:
    """Return what is answered: that it is done, or the error."""
    if error is None:
        return Answer()
    details = error.details
    if isinstance(error, CommandFailed) and details:
        # What a program printed may be long; a packet may not.
        details = details[-2000:]
    return Answer(Problem(error.code, error.brief, details, error.resolution))


def raise_error(raw: bytes) -> None:
    """Raise the error that an answer carries; nothing if it says that the work is done.

    :raises CfctlError: that error, of the class that it had, or if the answer is none.
    """
    try:
        problem = msgspec.json.decode(raw, type=Answer).error
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise CfctlError("the tap service answered nothing that makes sense", str(exc)) from exc
    if problem:
        raise _ERRORS.get(problem.code, CfctlError)(problem.brief, problem.details, problem.resolution)
