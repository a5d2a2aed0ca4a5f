"""Reads the host's network independently of the product: pyroute2 and sysfs for links, nft's JSON for rules.

Runs inside a sandbox: ``python -m tests.system.read_host``; prints one JSON document.
"""

from __future__ import annotations

import grp
import json
import subprocess
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute


def links() -> dict[str, Any]:
    with IPRoute() as ipr:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ipr.get_links()}
        addresses: dict[str, list[list[Any]]] = {}
        for address in ipr.get_addr(family=2):
            row = [address.get_attr("IFA_ADDRESS"), address["prefixlen"], address.get_attr("IFA_BROADCAST")]
            addresses.setdefault(names[address["index"]], []).append(row)
        found = {link.get_attr("IFLA_IFNAME"): link for link in ipr.get_links()}
        return {
            name: _link(link, names) | {"addresses": addresses.get(name, [])}
            for name, link in found.items()
            if name.startswith("cvd-")
        }


def _link(link: Any, names: dict[int, str]) -> dict[str, Any]:
    info = link.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND")
    found: dict[str, Any] = {
        "kind": kind,
        "alias": link.get_attr("IFLA_IFALIAS"),
        "master": names.get(link.get_attr("IFLA_MASTER") or 0),
        "up": bool(link["flags"] & 1),
        "mtu": link.get_attr("IFLA_MTU"),
        "link_group": link.get_attr("IFLA_GROUP"),
    }
    name = link.get_attr("IFLA_IFNAME")
    sys = Path("/sys/class/net") / name
    if kind == "bridge":
        bridge = sys / "bridge"
        keys = ("stp_state", "forward_delay", "ageing_time", "multicast_snooping")
        found |= {key: int((bridge / key).read_text()) for key in keys}
    else:
        # linux/if_tun.h: TAP 0x2, NO_PI 0x1000, VNET_HDR 0x4000, MULTI_QUEUE 0x100, PERSIST 0x800.
        found["tun_flags"] = (sys / "tun_flags").read_text().strip()
        found["tun_group"] = grp.getgrgid(int((sys / "group").read_text())).gr_name
        found["tun_owner"] = int((sys / "owner").read_text())
        port = sys / "brport" / "isolated"
        found["isolated"] = port.exists() and port.read_text().strip() == "1"
    return found


def rules() -> dict[str, Any]:
    done = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=True)
    tables: list[str] = []
    chains: dict[str, list[Any]] = {}
    found: dict[str, list[str]] = {}
    for entry in json.loads(done.stdout)["nftables"]:
        if table := entry.get("table"):
            tables.append(f"{table['family']} {table['name']}")
        elif chain := entry.get("chain"):
            chains[f"{chain['family']} {chain['table']} {chain['name']}"] = [
                chain[key] for key in ("type", "hook", "prio", "policy")
            ]
        elif rule := entry.get("rule"):
            where = f"{rule['family']} {rule['table']} {rule['chain']}"
            found.setdefault(where, []).append(_rule(rule["expr"]) + f" [{rule.get('comment', '')}]")
    return {"tables": sorted(tables), "chains": chains, "rules": {key: sorted(rows) for key, rows in found.items()}}


def _rule(expressions: list[dict[str, Any]]) -> str:
    words = []
    for expression in expressions:
        if match := expression.get("match"):
            right = match["right"]
            value = f"{right['prefix']['addr']}/{right['prefix']['len']}" if isinstance(right, dict) else right
            (left,) = match["left"].values()
            words.append(f"{left.get('field') or left.get('key')}{match['op']}{value}")
        else:
            words.extend(expression)
    return " ".join(words)


def servers() -> dict[str, Any]:
    """Return each dnsmasq by its interface: its argv, and whether pid and lease file are right."""
    found = {}
    for proc in Path("/proc").glob("[0-9]*"):
        argv = [arg.decode() for arg in (proc / "cmdline").read_bytes().split(b"\0")[:-1]]
        if argv and argv[0].endswith("dnsmasq"):
            name = next(arg for arg in argv if arg.startswith("--interface=")).partition("=")[2]
            assert name not in found, "two on one bridge"
            pid_file = Path(f"/run/cuttlefish-dnsmasq-{name}.pid")
            found[name] = {"argv": argv[1:], "pid_file": pid_file.read_text().strip() == proc.name}
    return found


def sysctls() -> dict[str, str]:
    names = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
    for bridge in ("cvd-ebr", "cvd-wbr"):
        names += [f"ipv6/conf/{bridge}/{key}" for key in ("disable_ipv6", "addr_gen_mode", "autoconf")]
    paths = {name: Path("/proc/sys/net") / name for name in names}
    return {name: path.read_text().strip() for name, path in paths.items() if path.exists()}


if __name__ == "__main__":
    print(json.dumps({"links": links(), **rules(), "servers": servers(), "sysctls": sysctls()}))
