"""Firewalls that keep guests from their DHCP server or from the outside, and the narrowest opening in each.

A packet must be let through by every base chain of a hook, so an accept in a table of ours does not help
(host_resources.md section 8, B17 and B18): the opening belongs where the drop is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cfctl.hostres.doctor.finding import Finding
from cfctl.instance import BRIDGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.hostres.doctor.facts import Facts

_WHY_INPUT = "Guests ask the host for their address by DHCP (UDP port 67 on the bridges)."
_WHY_FORWARD = "Guests reach the outside through the host."
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
        "\n".join(lines),
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
    names = "$(ls /sys/class/net | grep -E '^cvd-(ebr|wbr|mtap|wifiap)')"
    lines = (
        f"for i in {_BRIDGES}; do sudo ufw allow in on $i to any port 67 proto udp; done",
        f"for i in {names}; do sudo ufw route allow in on $i; done   (after host setup)",
    )
    found = "is on, without rules for cvd-*: guests get no address, and nothing of theirs is forwarded"
    yield Finding("ufw", "warn", found, f"{_WHY_INPUT} {_WHY_FORWARD}", "\n".join(lines))


# -- rules ---------------------------------------------------------------------------------------------------


_LETS_GUESTS = re.compile(r"-i cvd-\S* .*-j ACCEPT$")


@dataclass(slots=True)
class _Chain:
    """A chain that drops what no rule of it accepts."""

    family: str
    table: str
    name: str
    hook: str
    rules: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


def _rules(facts: Facts) -> Iterator[Finding]:
    if facts.ruleset is None:
        docker = " Docker runs: it may drop what guests send." if "dockerd" in facts.services else ""
        if facts.root:
            mend = facts.install("nftables", "nftables")
            yield Finding("firewall rules", "warn", f"not known: nft could not be asked.{docker}", _WHY_FORWARD, mend)
        else:
            found = f"not known: only root may read them.{docker}"
            yield Finding("firewall rules", "warn", found, _WHY_FORWARD, "sudo cfctl host doctor")
        return
    bad = 0
    chains, opened = _chains(facts.ruleset)
    for chain in chains:
        if (_ufw_active(facts) and "ufw" in "".join(chain.rules)) or chain.table == "firewalld":
            continue  # its owner has been named already, and rules put in here would not last
        if any("cvd-" in rule for rule in chain.rules):
            continue
        if chain.hook == "forward" and _is_docker(chain, opened):
            if not any("cvd-" in rule for rule in opened["DOCKER-USER"]):
                bad += 1
                yield _docker(chain)
            continue
        bad += 1
        yield _drop(chain)
    legacy = list(_legacy(facts))
    yield from legacy
    if not bad and not legacy:
        yield Finding("firewall rules", "ok", "nothing else drops what guests send", _WHY_FORWARD)


def _legacy(facts: Facts) -> Iterator[Finding]:
    """Check the rules that iptables-legacy has made, which nft does not show."""
    lines = (facts.legacy or "").splitlines()
    docker = "DOCKER-USER" if "-N DOCKER-USER" in lines else "FORWARD"
    ways = ("-i cvd-+ -j ACCEPT", "-o cvd-+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
    commands = "\n".join(f"sudo iptables-legacy -I {docker} {way}" for way in ways)
    yield from _legacy_chain(lines, "FORWARD", "guests do not reach the outside", _WHY_FORWARD, commands)
    commands = "sudo iptables-legacy -I INPUT -i cvd-+ -p udp --dport 67 -j ACCEPT"
    yield from _legacy_chain(lines, "INPUT", "guests get no address", _WHY_INPUT, commands)


def _legacy_chain(lines: list[str], chain: str, harm: str, why: str, commands: str) -> Iterator[Finding]:
    """Check a chain: `host setup` overcomes its policy, but no rule of an administrator, which it comes after."""
    check = f"legacy {chain.lower()} drop"
    reached = (f"-A {chain} ", "-A DOCKER-USER ") if chain == "FORWARD" else (f"-A {chain} ",)
    accepts = [line for line in lines if line.startswith(reached) and _LETS_GUESTS.search(line)]
    dropping = next((line for line in lines if line.startswith((f"-A {chain} -j DROP", f"-A {chain} -j REJECT"))), "")
    if dropping and not any(lines.index(line) < lines.index(dropping) for line in accepts):
        found = (
            f"a rule of iptables-legacy ({dropping}) drops all that is left: {harm}, and setup does not overrule it"
        )
        yield Finding(check, "warn", found, why, commands)
    elif f"-P {chain} DROP" in lines and not accepts:
        found = f"{chain} of iptables-legacy drops by default: {harm} until setup lets them through"
        yield Finding(check, "warn", found, why, "sudo cfctl host setup")


def _chains(ruleset: list[dict[str, Any]]) -> tuple[list[_Chain], dict[str, list[str]]]:
    """Return the dropping chains, and the rules of every other chain by its name."""
    dropping: dict[tuple[str, str, str], _Chain] = {}
    others: dict[str, list[str]] = {}
    for entry in ruleset:
        if chain := entry.get("chain"):
            key = chain["family"], chain["table"], chain["name"]
            drops = chain.get("policy") == "drop" and chain.get("hook") in ("input", "forward")
            if drops and chain["family"] in ("ip", "inet", "bridge"):
                dropping[key] = _Chain(*key, chain["hook"])
            elif chain["family"] == "ip":
                others.setdefault(chain["name"], [])
    for entry in ruleset:
        if rule := entry.get("rule"):
            key, text = (rule["family"], rule["table"], rule["chain"]), json.dumps(rule.get("expr", []))
            if key in dropping:
                dropping[key].rules.append(text)
            elif rule["chain"] in others:
                others[rule["chain"]].append(text)
    return list(dropping.values()), others


def _is_docker(chain: _Chain, others: dict[str, list[str]]) -> bool:
    return (chain.family, chain.table) == ("ip", "filter") and "DOCKER-USER" in others


def _docker(chain: _Chain) -> Finding:
    # Not iptables, which may be the other backend's: the chain was seen through nft.
    insert = f"sudo nft insert rule {chain.family} {chain.table} DOCKER-USER"
    lines = (
        f"{insert} iifname 'cvd-*' counter accept",
        f"{insert} oifname 'cvd-*' ct state established,related counter accept",
    )
    found = f"Docker has made {chain} drop what is not its own: guests do not reach the outside"
    return Finding("docker forward", "warn", found, _WHY_FORWARD, "\n".join(lines))


def _drop(chain: _Chain) -> Finding:
    insert = f"sudo nft insert rule {chain}"
    if chain.hook == "input":
        names = ", ".join(f'"{bridge.name}"' for bridge in BRIDGES)
        found = f"{chain} drops by default: guests get no address"
        return Finding(
            "input drop", "warn", found, _WHY_INPUT, f"{insert} 'iifname {{ {names} }} udp dport 67 accept'"
        )
    if chain.family == "bridge":
        found = f"{chain} drops by default: no frame crosses a bridge"
        return Finding("forward drop", "warn", found, _WHY_FORWARD, f"{insert} 'iifname \"cvd-*\" accept'")
    lines = (
        f"{insert} 'iifname \"cvd-*\" accept'",
        f"{insert} 'oifname \"cvd-*\" ct state established,related accept'",
    )
    found = f"{chain} drops by default: guests do not reach the outside"
    return Finding("forward drop", "warn", found, _WHY_FORWARD, "\n".join(lines))
