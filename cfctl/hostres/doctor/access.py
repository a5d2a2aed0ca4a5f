"""Who may do what: groups, device files, limits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cfctl.hostres.doctor.finding import Finding, Mend, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.hostres.doctor.facts import Facts, Node

_GROUP = "cvdnetwork"

#: Upstream's limit (cuttlefish-base, limits.d), and the one that it found too low for crosvm (2023-05).
_ENOUGH, _TOO_FEW = 32768, 4096

_WHY_NODE = {
    "dev/kvm": "The VM's processors.",
    "dev/net/tun": "The VM opens its taps through it.",
    "dev/vhost-vsock": "ADB, the modem and the logs of a device reach it through vsock.",
    "dev/vhost-net": "The guest's network runs in the kernel: faster.",
}


def checks(facts: Facts) -> Iterator[Finding]:
    """Check groups, device files and limits."""
    yield _group_exists(facts)
    yield from _membership(facts)
    for name in _WHY_NODE:
        yield _node(facts, name)
    yield _open_files(facts)


# -- groups --------------------------------------------------------------------------------------------------


def _members(facts: Facts, group: str) -> set[str] | None:
    """Return who is in a group by /etc/group; None if there is no such group."""
    match = re.search(rf"^{group}:[^:]*:(\d*):(.*)$", facts.read("etc/group"), re.MULTILINE)
    if not match:
        return None
    primary = re.findall(rf"^([^:]+):[^:]*:\d+:{match[1]}:", facts.read("etc/passwd"), re.MULTILINE)
    return {*primary, *filter(None, match[2].split(","))}


def _group_exists(facts: Facts) -> Finding:
    check, why = f"group {_GROUP}", "The taps belong to it: its members may open them."
    if _members(facts, _GROUP) is not None or _GROUP in facts.groups:
        return Finding(check, "ok", "is there", why)
    mend = ("groupadd", "--system", _GROUP)
    return Finding(check, "fail", "is missing", why, f"sudo {' '.join(mend)}", (Mend(mend),))


def _membership(facts: Facts) -> Iterator[Finding]:
    if facts.user == "root":
        yield Finding("membership", "ok", "root needs none", "Others must be members of cvdnetwork and kvm.")
        return
    kvm = facts.nodes.get("dev/kvm")
    wanted = {_GROUP: "The launcher refuses users who may not open the taps."}
    # Where everybody may open it, the group does not matter.
    if kvm is None or kvm.mode & 0o006 != 0o006:
        wanted["kvm"] = "The launcher refuses users who may not open /dev/kvm."
    for group, why in wanted.items():
        check, listed = f"membership {group}", facts.user in (_members(facts, group) or ())
        # For root, who asks for somebody else, the file is all there is.
        if listed if facts.root else group in facts.groups:
            yield Finding(check, "ok", f"{facts.user} is a member", why)
        elif listed:
            yield Finding(
                check,
                "fail",
                f"{facts.user} became a member after logging in",
                why,
                "Log in again, or: newgrp " + group,
            )
        else:
            command = f"sudo usermod -aG {group} {facts.user}"
            yield Finding(check, "fail", f"{facts.user} is not a member", why, f"{command}   (then log in again)")


# -- device files --------------------------------------------------------------------------------------------


def _node(facts: Facts, name: str) -> Finding:
    check, why, node = f"/{name}", _WHY_NODE[name], facts.nodes.get(name)
    needed = name != "dev/vhost-net"
    bad: Result = "fail" if needed else "warn"
    if node is None:
        if facts.container:
            return Finding(check, bad, "is missing", why, facts.container_option(f"--device /{name}"))
        module = {"dev/net/tun": "tun", "dev/kvm": "kvm"}.get(name, name[4:].replace("-", "_"))
        return Finding(check, bad, "is missing", why, f"See the finding on {module}.")
    if _open_to_members(node) or (not facts.root and node.usable):
        return Finding(check, "ok", f"{node.mode:04o} {node.group}", why)
    found = f"{node.mode:04o} {node.group}: users may not open it"
    group = "kvm" if name == "dev/kvm" or _members(facts, "kvm") is not None else _GROUP
    mode = "0666" if name == "dev/net/tun" else "0660"
    commands = [("chmod", mode, f"/{name}")]
    if name != "dev/net/tun":
        commands.insert(0, ("chgrp", group, f"/{name}"))
    shown = " && ".join(f"sudo {' '.join(command)}" for command in commands)
    # Root launches devices all the same; and only these two are no other program's.
    result: Result = "warn" if facts.user == "root" else bad
    mends = tuple(Mend(command) for command in commands) if "vhost" in name else ()
    return Finding(check, result, found, why, shown, mends)


def _open_to_members(node: Node) -> bool:
    by_group = node.group in ("kvm", _GROUP) and node.mode & 0o060 == 0o060
    return by_group or node.mode & 0o006 == 0o006


# -- limits --------------------------------------------------------------------------------------------------


def _open_files(facts: Facts) -> Finding:
    check, why = (
        "open files",
        "A VM and its helpers hold thousands of files; crosvm raises its own limit up to the hard one.",
    )
    soft, hard = (value if value >= 0 else 1 << 62 for value in facts.nofile)
    found = f"limit {_number(soft)}, may be raised to {_number(hard)}"
    if soft >= _ENOUGH:
        return Finding(check, "ok", found, why)
    lines = f"@{_GROUP} {'soft' if hard >= _ENOUGH else '-'} nofile {_ENOUGH}"
    command = f"echo '{lines}' | sudo tee /etc/security/limits.d/1_cuttlefish.conf   (then log in again)"
    if facts.container:
        command = facts.container_option(f"--ulimit nofile={_ENOUGH}")
    return Finding(check, "fail" if hard < _TOO_FEW else "warn", found, why, command)


def _number(limit: int) -> str:
    return "without end" if limit >= 1 << 62 else str(limit)
