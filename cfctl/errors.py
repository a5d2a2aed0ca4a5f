"""Every error that cfctl raises on purpose.

The tree (a test holds it equal to the code)::

    CfctlError                  exit 1   it failed
    ├── UsageError              exit 2   the caller asked for something that makes no sense
    │   └── EngineElsewhere              it takes a container engine on this machine
    ├── NotRunning              exit 3   the device exists, but is not up
    ├── HostLacks               exit 4   the host lacks a package, group, module or right
    │   ├── MissingCommand               a program that must be on PATH
    │   ├── NeedsRoot                    the verb changes the host
    │   └── EngineUnreachable            no container engine answers
    ├── DeadlinePassed          exit 5   it did not finish in time
    ├── CommandFailed                    a program that we ran ended badly
    ├── NoSuchDevice                     no device has that name
    ├── DamagedRecord                    a device's record cannot be read
    ├── NameTaken                        a device of that name is there already
    ├── NumberTaken                      an instance number is held by somebody else
    ├── LaunchFailed                     the launcher gave up before the device had booted
    ├── ForeignObject                    something that is not ours stands where we build
    ├── SubnetClash                      the host already routes a subnet that the bridges need
    ├── DevicesUp                        the work would pull the network from under running devices
    ├── AlreadyWatched                   another `cfctl host run` watches the host
    ├── NotAPod                          pod mode was asked for where it would cut off more than a container
    ├── UnsafeArchive                    an archive would write outside of its tree, or fill the disk
    ├── WrongProcessor                   a host package or a guest's images are for another processor
    ├── EngineRefused                    the container engine answered with an error
    ├── NoSuchContainer                  no container of cfctl has that name
    ├── ContainerNameTaken               a container of that name is there already, ours or not
    ├── ImageUnavailable                 the image of the containers is not there, or cannot be built
    ├── LoginFailed                      the container's sshd cannot be reached, or is not the one that was pinned
    ├── GuestImageUnavailable            the embedded guest cannot be built here
    ├── RelayUnreachable                 no relay answers at an address
    ├── RelayUntrusted                   a relay's certificate is not the one that was pinned
    ├── NoSuchContext                    no context has that name
    ├── FromElsewhere                    what a relay's host said, with its own code and exit status
    ├── TokenRefused                     a call over the network without a token that counts
    ├── NotAllowed                       the caller's role does not go that far
    ├── RelayBusy                        a limit of the relay is reached
    ├── RelayLeaving                     the relay is being stopped
    └── AlreadyServed                    another relay of this user runs

Each error says three things: ``brief`` (what happened, one line), ``details`` (why, with the evidence) and
``resolution`` (the command that mends it). The command line prints all three and exits with ``exit_code``;
``--json`` prints them with ``code``, a word that never changes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class CfctlError(Exception):
    """Something that went wrong and that the user can read about.

    :param brief: what happened, one line without a full stop.
    :param details: why: the evidence, several lines if need be.
    :param resolution: what mends it, with the exact command.
    """

    exit_code: int = 1
    code: str = "failed"

    def __init__(self, brief: str, details: str | None = None, resolution: str | None = None) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution

    def __str__(self) -> str:
        return "\n".join(part for part in (self.brief, self.details, self.resolution) if part)

    def as_dict(self) -> dict[str, str | None]:
        """Return the error as the ``error`` object of the ``--json`` contract (docs/schema/error.json)."""
        return {
            "code": self.code,
            "brief": self.brief,
            "details": self.details,
            "resolution": self.resolution,
        }


class UsageError(CfctlError):
    """The request makes no sense on any host: a bad number, name, mode or file."""

    exit_code = 2
    code = "usage"


class EngineElsewhere(UsageError):
    """It takes a container engine on this machine, and the one that was named is on another; nothing was changed."""

    code = "engine-elsewhere"


class NotRunning(CfctlError):
    """The device is known but not up, and the verb needs it up."""

    exit_code = 3
    code = "not-running"


class HostLacks(CfctlError):
    """The host lacks something; ``resolution`` names the package, group, module or command that mends it."""

    exit_code = 4
    code = "host-lacks"


class MissingCommand(HostLacks):
    """A program that cfctl runs is not installed.

    :param command: its name, as looked for on PATH.
    :param install: the command that installs it on this distribution.
    """

    code = "missing-command"

    def __init__(self, command: str, install: str) -> None:
        super().__init__(
            f"the program {command!r} is not installed",
            "It was looked for on PATH and in /usr/local/sbin, /usr/sbin and /sbin.",
            f"Install it: {install}",
        )
        self.command = command


class NeedsRoot(HostLacks):
    """The verb changes the host and was not run as root.

    :param what: what needs the right, for example ``host setup``.
    :param why: what it does that needs it.
    """

    code = "needs-root"

    def __init__(self, what: str, why: str = "It makes network interfaces, addresses and firewall rules.") -> None:
        super().__init__(
            f"{what} must run as root",
            why,
            f"Run it with sudo: sudo cfctl {what}",
        )


class DeadlinePassed(CfctlError):
    """The work did not finish in the time it was given; the caller says what state is left."""

    exit_code = 5
    code = "timed-out"


class CommandFailed(CfctlError):
    """A program ended with a status that means failure.

    :param argv: what was run.
    :param returncode: its exit status; negative is a signal.
    :param output: its standard output and error, in the order they were written.
    """

    code = "command-failed"

    def __init__(self, argv: Sequence[str], returncode: int, output: str, *, resolution: str | None = None) -> None:
        ended = f"ended with status {returncode}" if returncode >= 0 else f"was killed by signal {-returncode}"
        super().__init__(f"{argv[0]} {ended}", output.strip() or "It printed nothing.", resolution)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output


class NoSuchDevice(CfctlError):
    """No device of that name is known to this user.

    :param name: the name asked for.
    :param known: the names that exist.
    """

    code = "no-such-device"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"there is no device {name!r}",
            f"Devices: {', '.join(known)}." if known else "There are no devices.",
            "List them with: cfctl ps",
        )


class DamagedRecord(CfctlError):
    """The record of a device cannot be read; its processes and files are as they were.

    :param name: the device.
    :param why: what is wrong with the record.
    """

    code = "damaged-record"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"the record of device {name!r} is damaged",
            why,
            f"Stop what runs of it, and remove it: cfctl rm --force {name}",
        )


class NameTaken(CfctlError):
    """A device of that name exists already.

    :param name: the name asked for.
    :param state: the state of the device that has it.
    """

    code = "name-taken"

    def __init__(self, name: str, state: str) -> None:
        super().__init__(
            f"a device named {name!r} is there already, {state}",
            "Nothing was changed.",
            f"Start it again with: cfctl restart {name}\n"
            f"Remove it with: cfctl rm --force {name}\n"
            "Or choose another name: cfctl launch NAME",
        )


class NumberTaken(CfctlError):
    """No instance number is free, or the one asked for is held."""

    code = "number-taken"


class LaunchFailed(CfctlError):
    """The device did not boot; ``phase`` says how far it came.

    :param phase: the boot phase that did not end.
    """

    code = "launch-failed"

    def __init__(self, brief: str, details: str | None = None, resolution: str | None = None, *, phase: str) -> None:
        super().__init__(brief, details, resolution)
        self.phase = phase


class ForeignObject(CfctlError):
    """An object that is not ours has a name that we need; it was not touched."""

    code = "foreign-object"


class SubnetClash(CfctlError):
    """The host already has a route or address inside a subnet that the devices need; nothing was changed."""

    code = "subnet-clash"


class DevicesUp(CfctlError):
    """Devices are using the taps that the work would delete; nothing was changed."""

    code = "devices-up"


class AlreadyWatched(CfctlError):
    """Another ``cfctl host run`` watches this host; nothing was changed.

    :param pid: the other's; 0 if it runs in a PID namespace that we do not see.
    :param lock: the file that it has locked.
    """

    code = "already-watched"

    def __init__(self, pid: int, lock: str) -> None:
        super().__init__(
            f"another cfctl host run watches this host{f', pid {pid}' if pid else ''}",
            "Two with different settings would undo each other's work for ever. Nothing was changed.",
            f"See it: ps -o pid,lstart,args -p {pid}\n"
            f"Have it read its settings again: sudo kill -HUP {pid}\nEnd it; the host stays as it is: sudo kill {pid}"
            if pid
            else f"See who it is, on the host: sudo fuser -v {lock}",
        )


class NotAPod(CfctlError):
    """Pod mode was asked for in the host's own network, or outside of any container; nothing was changed."""

    code = "not-a-pod"


class UnsafeArchive(CfctlError):
    """An archive holds what no host package and no set of images needs; nothing of it was kept.

    :param archive: its path.
    :param why: what is wrong with it.
    """

    code = "unsafe-archive"

    def __init__(self, archive: os.PathLike[str] | str, why: str) -> None:
        super().__init__(
            f"{os.fspath(archive)} was not unpacked",
            f"{why[:1].upper()}{why[1:]}. Nothing of it was kept.",
            "Get it from where you trust it, and compare its checksum.",
        )


class WrongProcessor(CfctlError):
    """Programs or images were made for another processor than this host has; nothing was changed.

    :param what: the package or the images.
    :param theirs: the processor that they are for, as ``uname -m`` calls it.
    :param ours: this host's.
    :param resolution: what to take instead.
    """

    code = "wrong-processor"

    def __init__(self, what: str, theirs: str, ours: str, resolution: str) -> None:
        super().__init__(f"{what} is for {theirs}, and this host is {ours}", None, resolution)


class EngineUnreachable(HostLacks):
    """No container engine answers at the address that is configured.

    :param url: the address.
    :param why: what was tried, and what came of it.
    """

    code = "engine-unreachable"

    def __init__(self, url: str, why: str) -> None:
        mend = (
            "See whether you may log in there, and whether docker answers: docker --host {0} info"
            if url.startswith("ssh://")
            else "Start it (sudo systemctl start docker), be a member of its group (sudo usermod -aG docker $USER), "
            "or name another one: export DOCKER_HOST=ssh://USER@MACHINE"
        )
        super().__init__(f"no container engine answers at {url}", why, mend.format(url))


class EngineRefused(CfctlError):
    """The container engine answered with an error; ``brief`` says what was asked of it."""

    code = "engine-refused"


class NoSuchContainer(CfctlError):
    """No container of cfctl has that name on the engine.

    :param name: the name asked for.
    :param known: the names that exist.
    """

    code = "no-such-container"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"there is no container {name!r} of cfctl",
            f"Containers: {', '.join(known)}." if known else "There are no containers of cfctl on this engine.",
            f"List them: cfctl docker list\nOr make it: cfctl docker create {name}",
        )


class ContainerNameTaken(CfctlError):
    """A container of that name exists; nothing was changed."""

    code = "container-name-taken"


class ImageUnavailable(CfctlError):
    """The image that containers are made from is not on the engine, or cannot be built."""

    code = "image-unavailable"


class LoginFailed(CfctlError):
    """A container cannot be logged in to: its sshd is not reached, or is not the one that was pinned."""

    code = "login-failed"


class GuestImageUnavailable(CfctlError):
    """The embedded guest's image can neither be found nor built on this host."""

    code = "guest-image-unavailable"


class RelayUnreachable(CfctlError):
    """No relay answers at an address, or the connection to it broke; what it was asked to do may have been done.

    :param address: where it should be.
    :param why: what was tried, and what came of it.
    """

    code = "relay-unreachable"

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            f"no relay answers at {address}",
            why,
            "See on its host whether it runs: cfctl relay status\nSee which contexts there are: cfctl context list",
        )


class RelayUntrusted(CfctlError):
    """A relay's certificate is not the one that was pinned, or none is pinned yet; nothing was sent to it."""

    code = "relay-untrusted"


class NoSuchContext(CfctlError):
    """No context of that name is known to this user.

    :param name: the name asked for.
    :param known: the names that exist.
    :param make: making it may be what is wanted.
    """

    code = "no-such-context"

    def __init__(self, name: str, known: Sequence[str], *, make: bool = True) -> None:
        super().__init__(
            f"there is no context {name!r}",
            f"Contexts: {', '.join(known)}." if known else "There are no contexts.",
            f"List them: cfctl context list\nOr make it: cfctl context add {name} HOST:PORT"
            if make
            else "List them: cfctl context list",
        )


class FromElsewhere(CfctlError):
    """What a relay's host said about a call that failed there.

    :param code: the word of the error there.
    :param exit_code: what the same verb ends with there.
    """

    code = "from-elsewhere"

    def __init__(
        self,
        brief: str,
        details: str | None = None,
        resolution: str | None = None,
        *,
        code: str = "failed",
        exit_code: int = 1,
    ) -> None:
        super().__init__(brief, details, resolution)
        self.code = code
        self.exit_code = exit_code


class TokenRefused(CfctlError):
    """A call over the network has no token, or one that is unknown, expired or revoked: which is not said.

    :param why: what may be told to somebody who has not shown who he is.
    """

    code = "token-refused"

    def __init__(self, why: str = "The relay does not know the token, or it has expired or was revoked.") -> None:
        super().__init__(
            "the relay takes no calls without a valid token",
            why,
            "Have one made, on the relay's host: cfctl relay token create --role viewer",
        )


class NotAllowed(CfctlError):
    """The caller is known, and may not do that."""

    code = "not-allowed"


class RelayBusy(CfctlError):
    """A limit of the relay is reached: calls at once, connections, or what one user may have open."""

    code = "relay-busy"


class RelayLeaving(CfctlError):
    """The relay is being stopped; nothing is said about the devices, which run on."""

    code = "relay-leaving"


class AlreadyServed(CfctlError):
    """Another relay of this user (as root: of the host) runs; nothing was changed.

    :param pid: the other's; 0 if it cannot be seen.
    """

    code = "already-served"

    def __init__(self, pid: int) -> None:
        super().__init__(
            f"another cfctl relay serve runs{f', pid {pid}' if pid else ''}",
            "Both would listen on the same socket, and write to the same log. Nothing was changed.",
            f"See it: cfctl relay status\nHave it read its settings again: kill -HUP {pid}\nEnd it: kill {pid}"
            if pid
            else "See it: cfctl relay status",
        )
