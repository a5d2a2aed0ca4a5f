"""Firewalls that keep guests from their DHCP server or from the outside, and the narrowest opening in each.

A packet must be let through by every base chain of a hook, so an accept in a table of ours does not help
(host_resources.md section 8, B17 and B18): the opening belongs where the drop is. ``host setup`` makes it there,
unless it is to leave firewalls alone; then the commands are shown.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from cfctl.hostres import firewall
from cfctl.hostres.doctor.finding import Finding
from cfctl.instance import BRIDGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cfctl.hostres.doctor.facts import Facts
    from cfctl.hostres.firewall import Chain, Edit

_WHY_INPUT = "Guests ask the host for their address by DHCP (UDP port 67 on the bridges)."
_WHY_FORWARD = "Guests reach the outside through the host."
_WHY = {"input": _WHY_INPUT, "forward": _WHY_FORWARD}
_BRIDGES = " ".join(bridge.name for bridge in BRIDGES)


def checks(facts: Facts) -> Iterator[Finding]:
    """Check firewalld, ufw, and the drops of everything else."""
    yield from _firewalld(facts)
    yield from _ufw(facts)
    yield from _rules(facts)


def _firewalld(facts: Facts) -> Iterator[Finding]:
    # The daemon is a Python script: its comm is the script's name.
    if "firewalld" not in facts.services and not facts.exists("run/firewalld.pid"):
        return
    zones = [file for name in ("zones", "policies") for file in facts.path(f"etc/firewalld/{name}").glob("*.xml")]
    if any('"cvd-' in facts.read(str(file.relative_to(facts.sysroot))) for file in zones):
        yield Finding("firewalld", "ok", "runs, and has a zone for cvd-*", _WHY_FORWARD)
        return
    say = "sudo firewall-cmd --permanent"
    lines = (
        f"{say} --new-zone=cuttlefish",
        f"{say} --zone=cuttlefish --add-interface=cvd-+ --add-service=dhcp",
        f"{say} --new-policy=cuttlefish-out",
        f"{say} --policy=cuttlefish-out --set-target=ACCEPT --add-ingress-zone=cuttlefish --add-egress-zone=ANY",
        "sudo firewall-cmd --reload",
    )
    yield Finding(
        "firewalld",
        "warn",
        "runs, and has no zone for cvd-*: guests get no address, and nothing of theirs is forwarded",
        f"{_WHY_INPUT} {_WHY_FORWARD}",
        _help(facts, "\n".join(lines)),
    )


def _ufw_active(facts: Facts) -> bool:
    return bool(re.search(r"^ENABLED=yes", facts.read("etc/ufw/ufw.conf"), re.MULTILINE))


def _ufw(facts: Facts) -> Iterator[Finding]:
    if not _ufw_active(facts):
        return
    if "cvd-" in facts.read("etc/ufw/user.rules"):
        yield Finding("ufw", "ok", "is on, and has rules for cvd-*", _WHY_FORWARD)
        return
    if not facts.root and not facts.read("etc/ufw/user.rules"):
        yield Finding("ufw", "warn", "is on; only root may read its rules", _WHY_FORWARD, "sudo cfctl host doctor")
        return
    lines = (
        f"for i in {_BRIDGES}; do sudo ufw allow in on $i to any port 67 proto udp; done",
        "sudo ufw route allow in on cvd-+",
    )
    found = "is on, without rules for cvd-*: guests get no address, and nothing of theirs is forwarded"
    yield Finding("ufw", "warn", found, f"{_WHY_INPUT} {_WHY_FORWARD}", _help(facts, "\n".join(lines)))


# -- rules ---------------------------------------------------------------------------------------------------


def _rules(facts: Facts) -> Iterator[Finding]:
    if facts.chains is None:
        docker = " Docker runs: it may drop what guests send." if "dockerd" in facts.services else ""
        if facts.root:
            mend = facts.install("nftables", "nftables")
            yield Finding("firewall rules", "warn", f"not known: nft could not be asked.{docker}", _WHY_FORWARD, mend)
        else:
            found = f"not known: only root may read them.{docker}"
            yield Finding("firewall rules", "warn", found, _WHY_FORWARD, "sudo cfctl host doctor")
        return
    rules = [*_openings(facts, facts.chains), *_meant(facts.chains, facts.needs), *_bridges(facts.chains)]
    yield from rules
    if not rules:
        ours = any(line.marked for chain in facts.chains for line in chain.rules)
        said = (
            "what drops by default lets guests through (cfctl's rules)" if ours else "nothing drops what guests send"
        )
        yield Finding("firewall rules", "ok", said, _WHY_FORWARD)


def _openings(facts: Facts, chains: tuple[Chain, ...]) -> Iterator[Finding]:
    """Check what drops by default, and has no opening for guests yet."""
    several: dict[str, list[Edit]] = {}
    interfaces = facts.path("sys/class/net")
    names = [path.name for path in interfaces.iterdir()] if interfaces.is_dir() else []
    for edit in firewall.edits(chains, facts.needs, firewall.like_docker(names)):
        if edit.add:
            several.setdefault(edit.opening.reason, []).append(edit)
    for reason, edits in several.items():
        hook = "input" if "get an address" in reason else "forward"
        by_hand = "\n".join(_by_hand(edits, chains))
        yield Finding(f"{hook} drop", "warn", reason, _WHY[hook], _help(facts, by_hand))


def _by_hand(edits: Iterable[Edit], chains: tuple[Chain, ...]) -> Iterator[str]:
    """Yield commands that make openings in their order, typed one after another."""
    made: Counter[Chain] = Counter()
    for edit in edits:
        chain, rule = edit.chain, edit.opening.rule
        at = firewall.end(chain, chains)
        if chain.backend != firewall.NFT:
            # iptables counts: what was put in before has moved the place.
            yield f"sudo {chain.backend} -I {chain.name} {at + 1 + made[chain]} {rule}"
            made[chain] += 1
        elif at < len(chain.rules):
            yield f"sudo nft insert rule {chain} position {chain.rules[at].at} '{rule}'"
        else:
            yield f"sudo nft add rule {chain} '{rule}'"


def _meant(chains: tuple[Chain, ...], needs: firewall.Needs) -> Iterator[Finding]:
    """Name the drops that somebody has written for guests, or that keep their DHCP from the host."""
    meant = firewall.meant(chains)
    for said in firewall.shut(chains, needs):
        if said in meant:
            continue
        found = f"somebody drops DHCP, and cfctl leaves that as it is; guests get no address: {said}"
        yield Finding("drop of DHCP", "warn", found, _WHY_INPUT, "Look at it: sudo nft -a list ruleset")
    for said in meant:
        found = f"somebody drops what guests send, and cfctl leaves that as it is: {said}"
        yield Finding("drop for guests", "warn", found, _WHY_FORWARD, "Look at it: sudo nft -a list ruleset")


def _bridges(chains: tuple[Chain, ...]) -> Iterator[Finding]:
    """Check chains of the bridge family, which no opening is made in."""
    for chain in chains:
        if (
            chain.family == "bridge"
            and firewall.drops(chain, chains)
            and not any("cvd-" in r.text for r in chain.rules)
        ):
            yield Finding(
                f"{chain.hook} drop",
                "warn",
                f"{chain} drops by default: no frame crosses a bridge",
                _WHY_FORWARD,
                f"sudo nft insert rule {chain} 'iifname \"cvd-*\" accept'",
            )


def _help(facts: Facts, by_hand: str) -> str:
    """Return what opens a firewall: the set-up, or commands where cfctl is to leave firewalls alone."""
    return facts.setup if facts.firewall == "open" else by_hand
