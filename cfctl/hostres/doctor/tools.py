"""The programs that cfctl and the launchers run, and the one that launchers look for in a fixed place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.hostres.doctor.finding import Finding, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.hostres.doctor.facts import Facts

#: Program: Debian's package, the RPM world's, how bad it is without, what for.
_PROGRAMS: dict[str, tuple[str, str, Result, str]] = {
    "ip": ("iproute2", "iproute", "fail", "host setup makes links and addresses with it."),
    "nft": ("nftables", "nftables", "fail", "host setup makes firewall rules with it."),
    "dnsmasq": ("dnsmasq-base", "dnsmasq", "fail", "It gives guests their addresses."),
    "adb": ("adb", "android-tools", "warn", "cfctl adb talks to devices with it; host packages bring one too."),
    "lsof": (
        "lsof",
        "lsof",
        "warn",
        "Upstream's stop_cvd finds what is left of a device with it, else it kills nothing.",
    ),
}

#: Where assemble_cvd executes it, whatever the VM manager (host_configuration.cpp).
_QUERY = "usr/lib/cuttlefish-common/bin/capability_query.py"
#: All that it is asked for, by launchers up to 1.57.
_CAPABILITIES = "capability_check qemu_cli vsock"


def checks(facts: Facts) -> Iterator[Finding]:
    """Check programs."""
    for name, (debian, rpm, bad, why) in _PROGRAMS.items():
        if path := facts.programs.get(name):
            yield Finding(f"program {name}", "ok", str(path), why)
        elif name == "nft" and facts.programs.get("iptables"):
            found = "is not installed; host setup makes the rules with iptables"
            yield Finding(f"program {name}", "warn", found, why, facts.install(debian, rpm))
        else:
            yield Finding(f"program {name}", bad, "is not installed", why, facts.install(debian, rpm))
    yield _capability_query(facts)


def _capability_query(facts: Facts) -> Finding:
    check = "capability_query.py"
    why = "Launchers run it and give up without it, whichever VM manager they use. The embedded guest does not."
    if facts.exists(_QUERY):
        return Finding(check, "ok", f"/{_QUERY}", why)
    script = (
        "#!/bin/sh\\n"
        f'for want; do case " {_CAPABILITIES} " in *" $want "*) ;; *) exit 1 ;; esac; done\\n'
        f'[ $# -gt 0 ] || echo "{_CAPABILITIES}"\\n'
    )
    command = f"printf '{script}' | sudo install -D -m 0755 /dev/stdin /{_QUERY}"
    return Finding(check, "fail", f"/{_QUERY} is missing", why, command)
