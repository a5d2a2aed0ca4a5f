"""The tree of errors: drawn as it is, with exit statuses and words that scripts rely on."""

from __future__ import annotations

import re

import pytest

from cfctl import errors
from cfctl.errors import CfctlError

CONTRACT = {
    # error: (exit status, code)
    "CfctlError": (1, "failed"),
    "UsageError": (2, "usage"),
    "EngineElsewhere": (2, "engine-elsewhere"),
    "NotRunning": (3, "not-running"),
    "HostLacks": (4, "host-lacks"),
    "MissingCommand": (4, "missing-command"),
    "NeedsRoot": (4, "needs-root"),
    "DeadlinePassed": (5, "timed-out"),
    "CommandFailed": (1, "command-failed"),
    "NoSuchDevice": (1, "no-such-device"),
    "DamagedRecord": (1, "damaged-record"),
    "NameTaken": (1, "name-taken"),
    "NumberTaken": (1, "number-taken"),
    "LaunchFailed": (1, "launch-failed"),
    "ForeignObject": (1, "foreign-object"),
    "SubnetClash": (1, "subnet-clash"),
    "DevicesUp": (1, "devices-up"),
    "AlreadyWatched": (1, "already-watched"),
    "NotAPod": (1, "not-a-pod"),
    "UnsafeArchive": (1, "unsafe-archive"),
    "WrongProcessor": (1, "wrong-processor"),
    "EngineUnreachable": (4, "engine-unreachable"),
    "EngineRefused": (1, "engine-refused"),
    "NoSuchContainer": (1, "no-such-container"),
    "ContainerNameTaken": (1, "container-name-taken"),
    "ImageUnavailable": (1, "image-unavailable"),
    "LoginFailed": (1, "login-failed"),
    "GuestImageUnavailable": (1, "guest-image-unavailable"),
    "RelayUnreachable": (1, "relay-unreachable"),
    "RelayUntrusted": (1, "relay-untrusted"),
    "NoSuchContext": (1, "no-such-context"),
    "FromElsewhere": (1, "from-elsewhere"),
    "TokenRefused": (1, "token-refused"),
    "NotAllowed": (1, "not-allowed"),
    "RelayBusy": (1, "relay-busy"),
    "RelayLeaving": (1, "relay-leaving"),
    "AlreadyServed": (1, "already-served"),
}


def drawn() -> dict[str, str]:
    """Return the tree of the docstring: class -> parent."""
    tree, parents = {}, ["CfctlError"]
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│├└─ ]*)(\w+)(?:  |$)", line):
            depth = len(match[1]) // 4
            parents = [*parents[:depth], match[2]]
            if depth:
                tree[match[2]] = parents[depth - 1]
    return tree


def classes(root: type[CfctlError] = CfctlError) -> dict[str, type[CfctlError]]:
    """Return every error of the module below ``root``."""
    found: dict[str, type[CfctlError]] = {}
    for error in root.__subclasses__():
        if error.__module__ == errors.__name__:
            found |= {error.__name__: error, **classes(error)}
    return found


def test_the_drawing_is_the_code() -> None:
    assert drawn() == {name: error.__bases__[0].__name__ for name, error in classes().items()}


def test_drawn_exit_statuses() -> None:
    for line in (errors.__doc__ or "").splitlines():
        if match := re.search(r"(\w+) +exit (\d)", line):
            assert getattr(errors, match[1]).exit_code == int(match[2]), match[1]


def test_exit_statuses_and_codes_are_a_contract() -> None:
    found: dict[str, type[CfctlError]] = {"CfctlError": CfctlError, **classes()}
    assert {name: (error.exit_code, error.code) for name, error in found.items()} == CONTRACT


def test_no_code_is_used_twice() -> None:
    codes = [code for _, code in CONTRACT.values()]
    assert len(codes) == len(set(codes))


def test_three_parts() -> None:
    error = CfctlError("it broke", "because", "mend it")
    assert str(error) == "it broke\nbecause\nmend it"
    assert str(CfctlError("it broke")) == "it broke"
    assert error.as_dict() == {"code": "failed", "brief": "it broke", "details": "because", "resolution": "mend it"}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            errors.MissingCommand("nft", "apt-get install nftables"),
            "the program 'nft' is not installed\n"
            "It was looked for on PATH and in /usr/local/sbin, /usr/sbin and /sbin.\n"
            "Install it: apt-get install nftables",
        ),
        (
            errors.NeedsRoot("host setup"),
            "host setup must run as root\n"
            "It makes network interfaces, addresses and firewall rules.\n"
            "Run it with sudo: sudo cfctl host setup",
        ),
        (errors.CommandFailed(["ip", "link"], 2, "no such link\n"), "ip ended with status 2\nno such link"),
        (
            errors.AlreadyWatched(0, "/run/lock"),
            "another cfctl host run watches this host\n"
            "Two with different settings would undo each other's work for ever. Nothing was changed.\n"
            "See who it is, on the host: sudo fuser -v /run/lock",
        ),
        (errors.CommandFailed(["ip"], -9, ""), "ip was killed by signal 9\nIt printed nothing."),
        (
            errors.NoSuchDevice("a", ["b", "c"]),
            "there is no device 'a'\nDevices: b, c.\nList them with: cfctl ps",
        ),
        (
            errors.DamagedRecord("a", "no JSON"),
            "the record of device 'a' is damaged\nno JSON\nStop what runs of it, and remove it: cfctl rm --force a",
        ),
        (
            errors.NoSuchContainer("a", ["b"]),
            "there is no container 'a' of cfctl\nContainers: b.\n"
            "List them: cfctl docker list\nOr make it: cfctl docker create a",
        ),
        (
            errors.EngineUnreachable("ssh://me@x", "no route"),
            "no container engine answers at ssh://me@x\nno route\n"
            "See whether you may log in there, and whether docker answers: docker --host ssh://me@x info",
        ),
        (errors.NoSuchDevice("a", []), "there is no device 'a'\nThere are no devices.\nList them with: cfctl ps"),
        (
            errors.NameTaken("a", "stopped"),
            "a device named 'a' is there already, stopped\nNothing was changed.\n"
            "Start it again with: cfctl restart a\nRemove it with: cfctl rm --force a\n"
            "Or choose another name: cfctl launch NAME",
        ),
    ],
)
def test_texts(error: CfctlError, text: str) -> None:
    assert str(error) == text


def test_what_errors_carry() -> None:
    assert errors.LaunchFailed("x", phase="kernel").phase == "kernel"
    failed = errors.CommandFailed(("a", "b"), 1, "out", resolution="do this")
    assert (failed.argv, failed.returncode, failed.output, failed.resolution) == (("a", "b"), 1, "out", "do this")
    assert errors.MissingCommand("adb", "x").command == "adb"
