"""Hosts made of data: what the kernel would show after a set-up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cfctl.hostres import desired, dnsmasq, nft
from cfctl.hostres.desired import State
from cfctl.hostres.observed import FoundLink, Observed


def ready(state: State) -> Observed:
    """Return a host that is just as ``state`` says."""
    tables = {
        table.id: nft.FoundTable(
            table.id,
            table.chains,
            tuple(nft.FoundRule(rule, handle, marked=True) for handle, rule in enumerate(table.rules, 2)),
            marked=True,
        )
        for table in state.tables.values()
    }
    pids = {bridge: 100 + index for index, bridge in enumerate(state.servers)}
    return Observed(
        links={name: FoundLink(link, index=index) for index, (name, link) in enumerate(state.links.items(), 2)},
        tables=tables,
        servers=tuple(
            dnsmasq.Running(bridge, pids[bridge], ("/usr/sbin/dnsmasq", *server.argv[1:]), marked=True)
            for bridge, server in state.servers.items()
        ),
        pid_files=pids,
        directory=Path("/run/cfctl/host") if state.servers else None,
        hosts="".join(server.hosts for server in state.servers.values()),
        sysctls=dict(state.sysctls) or dict(desired.SYSCTLS),
    )


def upstream(count: int) -> Observed:
    """Return a host as upstream's script leaves it."""
    state = desired.build(count, guest_isolation=False)
    host = ready(state)
    return replace(
        host,
        links={name: replace(found, link=replace(found.link, alias=None)) for name, found in host.links.items()},
        tables={
            name: replace(table, marked=False, rules=tuple(replace(rule, marked=False) for rule in table.rules))
            for name, table in (host.tables or {}).items()
        },
        servers=tuple(replace(server, marked=False, argv=server.argv[:14]) for server in host.servers),
        directory=None,
    )
