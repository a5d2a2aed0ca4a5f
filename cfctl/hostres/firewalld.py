"""Openings in firewalld: a zone for the guests' interfaces with DHCP alone, and a policy that lets them out.

Both are files of its own configuration, as packages bring them, so they are permanent; a reload (over D-Bus)
makes them run. firewalld knows no zone that only runs. A reload keeps connections, but not what somebody has changed
without ``--permanent``: where there is such a change, nothing is done until its owner has decided.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process
from cfctl.errors import CfctlError, CommandFailed, ForeignObject
from cfctl.hostres import files, firewall
from cfctl.hostres.firewall import Opening

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: A reload of many zones and sets takes seconds.
_TIMEOUT_S = 120

_DIRECTORY = Path("/etc/firewalld")
_ZONE = "cuttlefish"
_POLICY = "cuttlefish-out"
_NAMES = (f"zones/{_ZONE}.xml", f"policies/{_POLICY}.xml")
#: Tells our files from somebody else's of that name.
_SIGN = f"Made by {firewall.MARK}"

#: As busctl prints it; every backend of firewalld knows the wildcard.
_INTERFACES = '"cvd-+"'

_SERVICE = "org.fedoraproject.FirewallD1"
_OBJECT = "/org/fedoraproject/FirewallD1"


@dataclass(frozen=True, slots=True)
class Found:
    """What firewalld is, and what of it is about guests.

    :param on: it runs.
    :param files: what our two files say, by name below its directory; the sign makes them ours.
    :param others: zones of somebody else that have a guest's interface.
    :param zone: our zone as it runs, in the words of busctl; empty if it does not.
    :param policy: our policy runs.
    """

    on: bool
    files: Mapping[str, str]
    others: tuple[str, ...] = ()
    zone: str = ""
    policy: bool = False

    @property
    def ours(self) -> bool:
        """There is something of ours."""
        return any(_SIGN in text for text in self.files.values()) or self.in_force

    @property
    def in_force(self) -> bool:
        """Our zone runs, and has the guests' interfaces."""
        return _SIGN in self.zone and _INTERFACES in self.zone


def read(*, on: bool, directory: Path = _DIRECTORY) -> Found | None:
    """Return how firewalld is; None where there is nothing of it. Only root may read its configuration.

    :param on: its rules are in the kernel.
    """
    found = {name: text for name in _NAMES if (text := files.read(directory / name))}
    if not on:
        return Found(on=False, files=found) if found else None
    zones = [path for path in sorted(directory.glob("zones/*.xml")) if f"zones/{path.name}" not in _NAMES]
    others = tuple(path.stem for path in zones if '"cvd-' in files.read(path))
    zone = _ask("zone", "getZoneSettings2", _ZONE) or ""
    return Found(
        on=True, files=found, others=others, zone=zone, policy=f'"{_POLICY}"' in (_ask("policy", "getPolicies") or "")
    )


def wanted(needs: firewall.Needs) -> dict[str, str]:
    """Return the files of our zone and our policy."""
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    says = f"  <short>Cuttlefish</short>\n  <description>{_SIGN}: virtual devices.</description>\n"
    # Router solicitation and neighbour discovery firewalld lets through by itself.
    ipv6 = '  <port port="547" protocol="udp"/>\n' if needs.ipv6 else ""
    dhcp = '  <service name="dhcp"/>\n' if needs.dhcp else ""
    zone, policy = _NAMES
    return {
        zone: f'{head}<zone>\n{says}  <interface name="cvd-+"/>\n{dhcp}{ipv6}</zone>\n',
        policy: f'{head}<policy target="ACCEPT">\n{says}  <ingress-zone name="{_ZONE}"/>\n'
        '  <egress-zone name="ANY"/>\n</policy>\n',
    }


def edits(found: Found | None, needs: firewall.Needs | None) -> list[tuple[firewall.Action, Opening]]:
    """Return what leads from firewalld as it is to what guests need, and nothing of ours beside."""
    if found is None:
        return []
    # A zone of somebody else's making for these interfaces is his decision; so is one of our name.
    foreign = found.others or any(_SIGN not in text for text in found.files.values())
    files_wanted = wanted(needs) if needs and found.on and not foreign else {}
    changes: list[tuple[firewall.Action, Opening]] = []
    for name in _NAMES:
        there, text = found.files.get(name), files_wanted.get(name)
        if text and (there is None or _facts(there) != _facts(text)):
            reason = "firewalld drops what no zone allows: guests would get no address, and not reach the outside"
            changes.append(("change" if there else "create", Opening("firewalld", name, reason)))
        elif not text and there and _SIGN in there:
            changes.append(("remove", Opening("firewalld", name, "not needed")))
    if found.on and not changes and not _runs(found, needs if files_wanted else None):
        changes.append(("change", Opening("firewalld", "what runs", "it is not what its configuration says")))
    return changes


def _facts(text: str) -> frozenset[tuple[str, ...]]:
    """Return what one of our files says that counts; firewalld may have written it in its own way."""
    told = re.findall(r"<(interface|service|port|ingress-zone|egress-zone)\b([^>]*?)/?>", text)
    facts = {(element, *sorted(re.findall(r'\w+="[^"]*"', attributes))) for element, attributes in told}
    return frozenset({*facts, *((target,) for target in re.findall(r'target="[^"]*"', text))})


def _runs(found: Found, needs: firewall.Needs | None) -> bool:
    """Tell whether firewalld has loaded what our files say."""
    if needs is None:
        return not found.in_force
    ports = '"547" "udp"' in found.zone
    return found.policy and found.in_force and ports == bool(needs.ipv6) and '"dhcp"' in found.zone


def write(found: Found, edits: Iterable[tuple[firewall.Action, Opening]], needs: firewall.Needs | None) -> None:
    """Carry edits out: the files, then one reload.

    :raises CfctlError: if firewalld refuses; another set-up goes on from there.
    """
    for action, opening in edits:
        path = _DIRECTORY / opening.rule
        if action == "remove":
            path.unlink(missing_ok=True)
            # What firewalld keeps when it writes the file itself.
            path.with_name(f"{path.name}.old").unlink(missing_ok=True)
        elif needs and opening.rule in _NAMES:
            path.parent.mkdir(exist_ok=True)
            files.replace(path, wanted(needs)[opening.rule], mode=0o644)
    if found.on and not needs and _lost():
        # Without interfaces the zone decides nothing; it goes with the next reload.
        _ask("zone", "removeInterface", _ZONE, "cvd-+")
    elif found.on:
        try:
            _call(_OBJECT, _SERVICE, "reload")
        except CommandFailed as exc:
            raise CfctlError(
                "firewalld does not load its configuration",
                exc.output.strip(),
                "Look at it: firewall-cmd --check-config",
            ) from exc


def require_nothing_lost() -> None:
    """Make sure that a reload takes nothing away that somebody has changed without ``--permanent``.

    :raises ForeignObject: naming the zones; nothing was changed.
    """
    if lost := _lost():
        raise ForeignObject(
            f"firewalld runs with changes that a reload would lose: zone {', '.join(lost)}",
            "Somebody has made them without --permanent. A zone for the guests needs a reload. Nothing was changed.",
            "Keep them: firewall-cmd --runtime-to-permanent\nOr lose them: firewall-cmd --reload",
        )


# -- D-Bus -----------------------------------------------------------------------------------------------


def _call(path: str, interface: str, method: str, *words: str) -> str:
    """Call a method over D-Bus; busctl is part of systemd, which every host with firewalld has.

    :param words: arguments, all strings.
    """
    signature = ["s" * len(words), *words] if words else []
    argv = ["busctl", "--system", f"--timeout={_TIMEOUT_S}", "call", _SERVICE, path, interface, method, *signature]
    return process.run(argv, timeout=_TIMEOUT_S + 5).stdout


def _ask(interface: str, method: str, *words: str) -> str | None:
    """Return the answer of the running configuration; None if it knows no such thing."""
    try:
        return _call(_OBJECT, f"{_SERVICE}.{interface}", method, *words)
    except CommandFailed:
        return None


def _lost() -> list[str]:
    """Return the zones that a reload would change; ours does not count."""
    words = shlex.split(_ask("zone", "getZones") or "")
    return [zone for zone in words[2:] if zone != _ZONE and _differs(zone)]


def _differs(zone: str) -> bool:
    """Tell whether a zone runs with other settings than its configuration has."""
    running = _ask("zone", "getZoneSettings2", zone)
    path = shlex.split(_call(f"{_OBJECT}/config", f"{_SERVICE}.config", "getZoneByName", zone))[1]
    permanent = _call(path, f"{_SERVICE}.config.zone", "getSettings2")
    return dict(_settings(running or "")) != dict(_settings(permanent))


def _settings(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the settings in an ``a{sv}`` of busctl, each with its words, sorted; empty ones are left out.

    Interfaces are not compared: a reload keeps where they are.
    """
    key, words = "", list[str]()
    for word in shlex.split(text)[2:]:
        if word in _SETTINGS:
            if key and words:
                yield key, tuple(sorted(words))
            key, words = word, []
        elif key not in ("", "interfaces"):
            words.append(word)
    if key and words:
        yield key, tuple(sorted(words))


#: What a zone has (firewalld.dbus(5), getZoneSettings2).
_SETTINGS = frozenset(
    (
        *("version", "short", "description", "target", "services", "ports", "icmp_blocks", "masquerade"),
        *("forward_ports", "interfaces", "sources", "rules_str", "protocols", "source_ports"),
        *("icmp_block_inversion", "forward", "egress_priority", "ingress_priority"),
    )
)
