"""What else works on the host's network: other people's firewalls, and what configures interfaces by itself.

One look at all of them, one list of what is to be changed in them, and the steps that change it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.hostres import filtertable, firewall, firewalld, managers, ruleset, ufw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cfctl.hostres.firewall import Chain, Needs


@dataclass(frozen=True, slots=True)
class Found:
    """What there is.

    :param chains: of other people's tables; None if only root may look, and we are not.
    :param bridges: interfaces called like those of Docker that are not Docker's.
    """

    chains: tuple[Chain, ...] | None = ()
    ufw: ufw.Found | None = None
    firewalld: firewalld.Found | None = None
    managers: tuple[managers.Found, ...] = ()
    bridges: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        """Something of ours is in one of them."""
        return bool(
            any(line.marked for chain in self.chains or () for line in chain.rules)
            or (self.ufw and self.ufw.rules)
            or (self.firewalld and self.firewalld.ours)
            or any(one.text for one in self.managers)
        )


def read() -> Found:
    """Look at all of them.

    :raises CommandFailed: if the rules cannot be read.
    """
    found = chains()
    if os.geteuid() != 0:
        return Found(found, managers=managers.read())
    runs = any(firewall.owner(chain) == "firewalld" for chain in found or ())
    # Not from /sys: where a chroot or a container has none, the kernel still answers.
    bridges = firewall.like_docker(name for _, name in socket.if_nameindex())
    return Found(found, ufw.read(), firewalld.read(on=runs), managers.read(), bridges)


def chains() -> tuple[Chain, ...] | None:
    """Return the chains of other people's tables, of nft and of iptables: a packet goes through both.

    :return: None if nobody could be asked who knows: only root may, and a program is needed.
    :raises CfctlError: if they cannot be read.
    """
    with_nft = ruleset.read()
    if os.geteuid() != 0:
        return with_nft
    others = filtertable.others(nft=process.find("nft") is not None)
    return with_nft if not others else (*(with_nft or ()), *others)


def changes(found: Found, needs: Needs | None, *, links: bool) -> Iterator[tuple[firewall.Action, str, str, str]]:
    """Yield what is to be changed: action, kind, name and reason.

    :param needs: what guests need; None for no openings at all.
    :param links: there are to be interfaces of guests.
    """
    for edit in firewall.edits(found.chains or (), needs, found.bridges):
        yield edit.action, "opening", edit.opening.name, edit.opening.reason
    for action, opening in (*ufw.edits(found.ufw, needs), *firewalld.edits(found.firewalld, needs)):
        yield action, "opening", opening.name, opening.reason
    for action, manager, reason in managers.edits(found.managers, wanted=links):
        yield action, "manager", manager.name, reason


def refuse(found: Found, needs: Needs | None) -> None:
    """Make sure that openings do no harm to those that they are made in.

    :raises ForeignObject: if firewalld would lose what somebody has changed; nothing was changed.
    """
    if needs and firewalld.edits(found.firewalld, needs):
        firewalld.require_nothing_lost()


def steps(found: Found, needs: Needs | None, *, links: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the work, piece by piece; each may be the last one, and another plan goes on."""
    if told := managers.edits(found.managers, wanted=links):
        yield "say whose the interfaces are", lambda: managers.write(told)
    if firewall.edits(found.chains or (), needs, found.bridges):
        yield "change the openings in other firewalls", lambda: _write(needs, found.bridges)
    if rules := ufw.edits(found.ufw, needs):
        yield "change the openings in ufw", lambda: ufw.write(rules)
    if (there := found.firewalld) and (zones := firewalld.edits(there, needs)):
        yield "change the openings in firewalld", lambda: firewalld.write(there, zones, needs)


def _write(needs: Needs | None, bridges: tuple[str, ...]) -> None:
    # Read again: iptables knows a rule by its number, which our own rules have moved since, if nobody else's have.
    now = chains() or ()
    ruleset.write(firewall.edits(now, needs, bridges), now)
