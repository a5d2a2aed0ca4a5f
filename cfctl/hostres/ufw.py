"""Openings in ufw: rules of its own with a comment, which it keeps and puts back at every reload and boot.

What is put into its chains behind its back is gone after ``ufw reload``. Its rules are read from its files: asking
the program takes a tenth of a second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError, CommandFailed
from cfctl.hostres import files, firewall
from cfctl.hostres.firewall import Opening

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIMEOUT_S = 60

_DIRECTORY = Path("/etc/ufw")
_RULES = ("user.rules", "user6.rules")
#: A rule as ufw remembers it; the comment is in hexadecimal.
_TUPLE = re.compile(
    r"^### tuple ### (?P<route>route:)?(?P<action>\w+) (?P<protocol>\S+) (?P<port>\S+) \S+ \S+ \S+ "
    rf"(?P<side>in|out)_(?P<interface>\S+) comment={firewall.MARK.encode().hex()}$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Found:
    """What ufw is, and what of it is ours.

    :param on: it filters; otherwise it only remembers rules.
    :param rules: ours, as one writes them behind ``ufw``.
    """

    on: bool
    rules: tuple[str, ...] = ()


def read(directory: Path = _DIRECTORY) -> Found | None:
    """Return how ufw is; None where it is not installed. Only root may read its rules."""
    configuration = files.read(directory / "ufw.conf")
    if not configuration:
        return None
    on = bool(re.search(r"^ENABLED=[\"']?yes", configuration, re.MULTILINE))
    found = (_rule(match) for name in _RULES for match in _TUPLE.finditer(files.read(directory / name)))
    # One rule makes a tuple for each version of IP.
    return Found(on, tuple(dict.fromkeys(found)))


def _rule(match: re.Match[str]) -> str:
    words = ["route"] if match["route"] else []
    words += [match["action"], match["side"], "on", match["interface"]]
    if match["protocol"] != "any":
        words += ["proto", match["protocol"]]
    if match["port"] != "any":
        words += ["to", "any", "port", match["port"]]
    return " ".join(words)


def rules(needs: firewall.Needs) -> list[Opening]:
    """Return what guests need. Answers ufw lets through by itself, and so what IPv6 needs to find a router."""
    asked = [(bridge, 67) for bridge in needs.dhcp] + [(bridge, 547) for bridge in needs.ipv6]
    allowed = {f"allow in on {bridge} proto udp to any port {port}": "get an address" for bridge, port in asked}
    allowed["route allow in on cvd-+"] = "reach the outside"
    return [
        Opening("ufw", rule, f"ufw drops what no rule allows: guests would not {lost}")
        for rule, lost in allowed.items()
    ]


def edits(found: Found | None, needs: firewall.Needs | None) -> list[tuple[firewall.Action, Opening]]:
    """Return what leads from ufw's rules to those that guests need, and none of ours beside."""
    if found is None:
        return []
    wanted = {opening.rule: opening for opening in (rules(needs) if needs and found.on else ())}
    missing: list[tuple[firewall.Action, Opening]] = [
        ("create", opening) for rule, opening in wanted.items() if rule not in found.rules
    ]
    return missing + [("remove", Opening("ufw", rule, "not needed")) for rule in found.rules if rule not in wanted]


def write(edits: Iterable[tuple[firewall.Action, Opening]]) -> None:
    """Carry edits out, one after the other.

    :raises CfctlError: at the first that ufw refuses; those before it have been carried out.
    """
    for action, opening in edits:
        words = opening.rule.split()
        if action == "remove":
            words.insert(1 if words[0] == "route" else 0, "delete")
        else:
            words += ["comment", firewall.MARK]
        try:
            process.run(["ufw", *words], timeout=_TIMEOUT_S)
        except CommandFailed as exc:
            raise CfctlError(
                f"ufw refuses: ufw {' '.join(words)}",
                exc.output.strip(),
                "Look at it: ufw status verbose\n"
                'To leave other people\'s firewalls alone: host.firewall = "leave" in config.toml',
            ) from exc
