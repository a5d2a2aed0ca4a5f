"""The plan: nothing for a host that is right, and for any other just what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.hostres import backends, desired, dnsmasq, nft, plan
from cfctl.hostres.desired import External, State
from cfctl.hostres.observed import FoundLink, Observed
from cfctl.hostres.safety import Uplink
from cfctl.instance import UPSTREAM
from tests.hostres import hosts

STATE = desired.build(3)
READY = hosts.ready(STATE)
SMALL = st.integers(0, 6)


def compute(observed: Observed, state: State = STATE, **flags: bool) -> list[tuple[str, str, str]]:
    return [(c.action, c.object, c.reason) for c in plan.compute(state, observed, **flags).changes]


def with_link(name: str, **fields: Any) -> Observed:
    found = READY.links[name]
    changed = replace(found, link=replace(found.link, **fields))
    return replace(READY, links={**READY.links, name: changed})


@given(SMALL)
def test_a_ready_host_needs_nothing(count: int) -> None:
    state = desired.build(count)
    result = plan.compute(state, hosts.ready(state))
    assert result.changes == ()
    assert result.state == ("ready" if count else "absent")


@given(SMALL, SMALL)
def test_another_number_is_the_difference(before: int, after: int) -> None:
    one, other = desired.build(before), desired.build(after)
    changed = plan.compute(other, hosts.ready(one)).changes
    links = {(c.action, c.name) for c in changed if c.kind in ("tap", "bridge")}
    assert links == {("create", name) for name in other.links.keys() - one.links.keys()} | {
        ("remove", name) for name in one.links.keys() - other.links.keys()
    }
    if before and after:
        assert {c.kind for c in changed} <= {"tap", "rule"}


@given(st.sets(st.sampled_from(sorted(STATE.links))), st.sets(st.sampled_from(STATE.tables[nft.NAT].rules)))
def test_what_is_missing_is_made_and_nothing_else(links: set[str], rules: set[nft.Rule]) -> None:
    table = (READY.tables or {})[nft.NAT]
    host = replace(
        READY,
        links={name: found for name, found in READY.links.items() if name not in links},
        tables={
            **(READY.tables or {}),
            nft.NAT: replace(table, rules=tuple(rule for rule in table.rules if rule.rule not in rules)),
        },
    )
    made = {(c.action, c.object) for c in plan.compute(STATE, host).changes}
    wanted = {("create", f"{STATE.links[name].kind} {name}") for name in links}
    wanted |= {("create", f"rule {plan.rule_name(nft.NAT, rule)}") for rule in rules}
    # A server does not notice that its bridge has been made anew.
    wanted |= {("change", f"dnsmasq {name}") for name in links if STATE.links[name].kind == "bridge"}
    assert made == wanted


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("cvd-etap-01", {"master": None}, "its bridge is none, not cvd-ebr"),
        ("cvd-etap-01", {"isolated": False}, "the port is not isolated from other guests"),
        ("cvd-etap-01", {"up": False}, "it is down"),
        ("cvd-etap-01", {"group": "77"}, "a tear-down that was killed left it in link group 77"),
        ("cvd-mtap-01", {"master": "cvd-ebr"}, "its bridge is cvd-ebr, not none"),
        (
            "cvd-mtap-01",
            {"addresses": ()},
            "its address is none, not 192.168.97.1/30 broadcast 192.168.97.3",
        ),
        (
            "cvd-mtap-01",
            {"addresses": (desired.Address("192.168.97.1/30", None),)},
            "its address is 192.168.97.1/30 broadcast none, not 192.168.97.1/30 broadcast 192.168.97.3",
        ),
        ("cvd-ebr", {"options": (("stp_state", 1), ("forward_delay", 0))}, "stp_state is 1, not 0"),
    ],
)
def test_a_link_is_mended(name: str, fields: dict[str, Any], reason: str) -> None:
    assert compute(with_link(name, **fields)) == [("change", f"{STATE.links[name].kind} {name}", reason)]


def test_tap_flags() -> None:
    options = tuple((key, False if key == "vnet_hdr" else value) for key, value in desired.TAP_OPTIONS)
    host = with_link("cvd-etap-01", options=options)
    assert compute(host) == [("change", "tap cvd-etap-01", "vnet_hdr is off, not on")]
    assert plan.compute(STATE, host).in_use == ()
    host = replace(host, links={**host.links, "cvd-etap-01": replace(host.links["cvd-etap-01"], carrier=True)})
    assert plan.compute(STATE, host).in_use == ("cvd-etap-01",)


def test_a_tap_in_use_that_goes_is_named() -> None:
    busy = {name: replace(found, carrier=name == "cvd-wtap-03") for name, found in READY.links.items()}
    assert plan.compute(desired.build(2), replace(READY, links=busy)).in_use == ("cvd-wtap-03",)
    assert plan.compute(STATE, replace(READY, links=busy)).in_use == ()


def test_leftovers_of_a_killed_setup_go() -> None:
    left = FoundLink(desired.Link("cvd-new-ebr", "bridge", (), alias=None, up=False))
    host = replace(READY, links={**READY.links, "cvd-new-ebr": left})
    assert compute(host) == [("remove", "bridge cvd-new-ebr", "a set-up that was killed left it")]


# -- what is not ours ----------------------------------------------------------------------------------------


@given(SMALL.filter(bool), SMALL.filter(bool))
def test_upstream_is_a_conflict_that_can_be_adopted(theirs: int, ours: int) -> None:
    host = hosts.upstream(theirs)
    refused = plan.compute(desired.build(ours), host)
    assert refused.state == "absent"
    assert refused.conflicts
    assert all(conflict.adoptable for conflict in refused.conflicts)
    adopted = plan.compute(desired.build(ours), host, adopt=True)
    assert adopted.conflicts == ()
    assert {c.action for c in adopted.changes if c.name in ("cvd-ebr", "cvd-etap-01")} == {"change"}
    assert plan.compute(State(), host).changes == (), "a teardown leaves upstream's alone"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"alias": "docker"}, "its alias says that it belongs to 'docker'"),
        ({"alias": None, "kind": "veth"}, "it is not marked as cfctl's, and its kind is veth"),
        (
            {"alias": None, "master": "br0"},
            "it is not marked as cfctl's, and not as upstream's script makes it: its bridge is br0, not cvd-ebr",
        ),
    ],
)
def test_foreign_links(fields: dict[str, Any], reason: str) -> None:
    for adopt in (False, True):
        result = plan.compute(STATE, with_link("cvd-etap-01", **fields), adopt=adopt)
        assert result.conflicts == (plan.Conflict("tap cvd-etap-01", reason, adoptable=False),)
    assert "cvd-etap-01" not in [c.name for c in plan.compute(State(), with_link("cvd-etap-01", **fields)).changes]


def test_an_unmarked_rule_in_our_table_is_left() -> None:
    nat = (READY.tables or {})[nft.NAT]
    rule = nft.FoundRule(nft.Rule("postrouting", "counter accept"), 99, marked=False)
    host = replace(READY, tables={**(READY.tables or {}), nft.NAT: replace(nat, rules=(*nat.rules, rule))})
    assert compute(host) == []
    down = plan.compute(State(), host)
    assert down.left == ("table ip cuttlefish_nat stays: it holds what cfctl did not make: rule 'counter accept'",)
    assert "table ip cuttlefish_nat" not in [c.object for c in down.changes]
    assert len([c for c in down.changes if c.kind == "rule"]) == len(nat.rules)


def test_a_changed_hook_with_a_strangers_rule_is_a_conflict() -> None:
    nat = (READY.tables or {})[nft.NAT]
    rule = nft.FoundRule(nft.Rule("postrouting", "counter accept"), 99, marked=False)
    chain = nft.Chain("postrouting", "type nat hook postrouting priority 0; policy accept;")
    moved = replace(nat, chains=(chain,))
    host = replace(READY, tables={**(READY.tables or {}), nft.NAT: moved})
    assert compute(host)[0] == ("change", "table ip cuttlefish_nat", "chain postrouting is not as it should be")
    host = replace(READY, tables={**(READY.tables or {}), nft.NAT: replace(moved, rules=(rule,))})
    (conflict,) = plan.compute(STATE, host).conflicts
    assert conflict.reason == (
        "chain postrouting is not as it should be, and there is what cfctl did not make: rule 'counter accept'"
    )


def test_a_doubled_rule_goes_once() -> None:
    nat = (READY.tables or {})[nft.NAT]
    twice = replace(nat, rules=(*nat.rules, replace(nat.rules[0], handle=99)))
    host = replace(READY, tables={**(READY.tables or {}), nft.NAT: twice})
    assert compute(host) == [
        (
            "remove",
            "rule ip cuttlefish_nat postrouting: ip saddr 192.168.98.0/24 masquerade",
            "it is there twice",
        )
    ]
    assert [found.handle for _, found in plan.superfluous(STATE.tables[nft.NAT], twice)] == [99]


def test_why_a_table_goes() -> None:
    def gone(there: State, wanted: State) -> set[str]:
        changed = compute(hosts.ready(there), wanted)
        return {reason for action, name, reason in changed if action == "remove" and name.startswith("table")}

    for before in backends.ALL:
        there = desired.build(3, backend=before)
        for now in backends.ALL:
            said = set() if now is before else {f"the rules are made with {now.NAME} now"}
            assert gone(there, desired.build(3, backend=now)) == said
        assert gone(there, desired.build(3, backend=before, guest_isolation=False)) == {"guests may reach each other"}


def test_rules_that_could_not_be_read_are_not_judged() -> None:
    assert compute(replace(READY, tables=None)) == []


# -- servers, sysctls, uplinks, files --------------------------------------------------------------------------


def _servers(*servers: dnsmasq.Running) -> Observed:
    return replace(READY, servers=servers)


EBR, WBR = READY.servers


@pytest.mark.parametrize(
    ("host", "change"),
    [
        (_servers(WBR), ("create", "dnsmasq cvd-ebr", "it is not running")),
        (_servers(EBR, replace(EBR, pid=7), WBR), ("change", "dnsmasq cvd-ebr", "2 of them run")),
        (
            _servers(replace(EBR, argv=(*EBR.argv, "--quiet-dhcp")), WBR),
            ("change", "dnsmasq cvd-ebr", "its options differ: --quiet-dhcp is too much"),
        ),
        (
            _servers(replace(EBR, argv=tuple(o for o in EBR.argv if o != "--port=0")), WBR),
            ("change", "dnsmasq cvd-ebr", "its options differ: --port=0 is missing"),
        ),
        (
            _servers(replace(EBR, argv=tuple(o.replace("port=0", "port=5 3") for o in EBR.argv)), WBR),
            ("change", "dnsmasq cvd-ebr", "its options differ: '--port=5 3' instead of --port=0"),
        ),
        (
            _servers(replace(EBR, argv=(EBR.argv[0], *reversed(EBR.argv[1:]))), WBR),
            ("change", "dnsmasq cvd-ebr", "its options differ: their order"),
        ),
        (
            replace(READY, pid_files={**READY.pid_files, "cvd-ebr": None}),
            ("change", "dnsmasq cvd-ebr", "its pid file does not name it"),
        ),
        (
            replace(READY, hosts=""),
            ("change", "dnsmasq cvd-ebr", "/run/cfctl/host/cvd-ebr.hosts is not as it should be"),
        ),
        (replace(READY, group_exists=False), ("create", "group cvdnetwork", "it is missing")),
        (
            replace(READY, sysctls={**READY.sysctls, "net.ipv4.ip_forward": "0"}),
            ("change", "sysctl net.ipv4.ip_forward", "it is 0, not 1"),
        ),
        (
            replace(READY, advertised=(Uplink("eth0", "1", "0"),)),
            (
                "change",
                "uplink eth0",
                "its router's advertisements would be ignored when the host forwards: accept_ra = 2",
            ),
        ),
    ],
)
def test_one_thing_is_wrong(host: Observed, change: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert compute(host) == [change]


def test_a_kernel_without_ipv6() -> None:
    assert compute(replace(READY, sysctls={"net.ipv4.ip_forward": "1"})) == []


def test_teardown_restores_uplinks_and_removes_files() -> None:
    host = replace(
        READY,
        uplinks=(Uplink("eth0", "1", "0"),),
        files={Path("/run/a.pid"): "cvd-ebr", Path("/run/b.leases"): "cvd-wbr"},
    )
    changes = compute(host, State())
    assert ("change", "uplink eth0", "as before the set-up: forwarding = 0, accept_ra = 1") in changes
    assert [name for _, name, _ in changes if name.startswith(("file", "directory"))] == [
        "file /run/a.pid",
        "file /run/b.leases",
        "directory /run/cfctl/host",
    ]


def test_files_of_upstreams_server_stay() -> None:
    host = replace(hosts.upstream(1), files={Path("/run/a.pid"): "cvd-ebr"})
    assert compute(host, State()) == []


# -- hosts of another kind ---------------------------------------------------------------------------------

EXTERNAL = desired.build(3, external=External("br0"))
OTHER = replace(UPSTREAM, ethernet=IPv4Network("10.0.98.0/24"), mobile=IPv4Network("10.0.97.0/24"))
KINDS = st.sampled_from(
    [
        {},
        {"external": External("br0")},
        {"external": External("br1", ipv4=False)},
        {"subnets": OTHER},
        {"ipv6_prefixes": {"cvd-ebr": "fd00:98::"}},
    ]
)


def _carried_out(work: plan.Plan) -> Observed:
    """Return the host after a plan, if every change in it makes its object as it should be."""
    links = {name: found for name, found in work.observed.links.items() if name in work.desired.links}
    for change in (*work.of("tap", "create", "change"), *work.of("bridge", "create", "change")):
        link = work.desired.links[change.name]
        was = work.observed.links.get(change.name)
        if change.action == "change" and was:
            fields = {name: getattr(link, name) for name in ("master", "isolated", "addresses", "mac")}
            link = replace(was.link, **{name: value for name, value in fields.items() if name in change.fields})
        links[change.name] = FoundLink(link)
    return replace(hosts.ready(work.desired), links=links)


@given(SMALL, KINDS, SMALL, KINDS)
def test_any_kind_of_host_becomes_any_other(before: int, one: Any, after: int, other: Any) -> None:
    ready = hosts.ready(desired.build(before, **one))
    state = desired.build(after, **other)
    work = plan.compute(state, ready)
    assert work.conflicts == ()
    kept = set(ready.links) & set(state.links)
    assert {c.name for c in work.of("tap", "create", "remove")}.isdisjoint(kept), "taps move, they are not made anew"
    assert plan.compute(state, _carried_out(work)).changes == ()


def test_onto_somebody_elses_bridge_and_what_it_says() -> None:
    changed = compute(READY, EXTERNAL)
    reasons = {name: reason for _, name, reason in changed}
    assert reasons["tap cvd-etap-01"] == (
        "its MAC is none, not fe:1a:11:e1:cf:00, which no bridge takes as its own; its bridge is cvd-ebr, not br0"
    )
    assert reasons["bridge cvd-ebr"] == "it is cfctl's, but no longer needed"
    assert reasons["dnsmasq cvd-ebr"] == "the guests are to be on somebody else's bridge"
    assert "directory /run/cfctl/host" not in reasons, "what the set-up must remember stays"
    assert compute(hosts.ready(EXTERNAL), EXTERNAL) == []


def test_files_on_somebody_elses_bridge() -> None:
    left = {Path("/run/a.leases"): "cvd-ebr"}
    switched = replace(hosts.ready(EXTERNAL), files=left, directory=Path("/run/cfctl/host"))
    assert compute(switched, EXTERNAL) == [("remove", "file /run/a.leases", "the server that wrote it ends")]
    # Here there never was a server of ours: upstream's script leaves its lease files.
    assert compute(replace(hosts.ready(EXTERNAL), files=left), EXTERNAL) == []


def _busy(host: Observed, *names: str) -> Observed:
    links = {name: replace(found, carrier=name in names) for name, found in host.links.items()}
    return replace(host, links=links)


@pytest.mark.parametrize(
    ("busy", "state", "in_use"),
    [
        ("cvd-etap-01", EXTERNAL, ("cvd-etap-01",)),
        ("cvd-mtap-01", EXTERNAL, ()),
        ("cvd-etap-02", desired.build(3, subnets=OTHER), ("cvd-etap-02",)),
        ("cvd-wtap-02", desired.build(3, subnets=OTHER), ()),
        ("cvd-mtap-02", desired.build(3, subnets=OTHER), ("cvd-mtap-02",)),
        # Only something more: no guest notices.
        ("cvd-etap-01", desired.build(3, ipv6_prefixes={"cvd-ebr": "fd00:98::"}), ()),
        ("cvd-etap-01", desired.build(3, dns_servers=("192.0.2.1",)), ()),
    ],
)
def test_taps_in_use_that_would_move(busy: str, state: State, in_use: tuple[str, ...]) -> None:
    assert plan.compute(state, _busy(READY, busy)).in_use == in_use
    adopted = plan.compute(state, _busy(hosts.upstream(3), busy), adopt=True)
    assert adopted.in_use == in_use


def test_upstream_on_somebody_elses_bridge_can_be_adopted() -> None:
    theirs = hosts.ready(EXTERNAL)
    links = {
        name: replace(found, link=replace(found.link, alias=None, isolated=False, mac="02:00:00:00:00:01"))
        for name, found in theirs.links.items()
    }
    refused = plan.compute(EXTERNAL, replace(theirs, links=links))
    assert {conflict.adoptable for conflict in refused.conflicts} == {True}
    assert {c.action for c in plan.compute(EXTERNAL, replace(theirs, links=links), adopt=True).changes} == {"change"}
    # On any other bridge somebody else has put them there.
    other = plan.compute(desired.build(3, external=External("br1")), replace(theirs, links=links), adopt=True)
    assert "its bridge is br0" in other.conflicts[0].reason


def test_upstreams_bridge_rules_can_be_adopted() -> None:
    state = desired.build(1, external=External("br0", ipv4=False))
    ready = hosts.ready(state)
    table = (ready.tables or {})[nft.BRIDGE]
    bare = replace(table, marked=False, rules=tuple(replace(rule, marked=False) for rule in table.rules))
    host = replace(ready, tables={**(ready.tables or {}), nft.BRIDGE: bare})
    assert [conflict.adoptable for conflict in plan.compute(state, host).conflicts] == [True]
    assert [c.adoptable for c in plan.compute(desired.build(1, external=External("br0")), host).conflicts] == [False]


@pytest.mark.parametrize(
    ("links", "bridge"),
    [
        (hosts.ready(EXTERNAL).links, "br0"),
        (READY.links, None),
        ({}, None),
        # Somebody has deleted cfctl's own.
        ({"cvd-etap-01": READY.links["cvd-etap-01"]}, None),
        # Half way there: nobody has said where to.
        ({**hosts.ready(EXTERNAL).links, "cvd-ebr": READY.links["cvd-ebr"]}, None),
    ],
)
def test_which_bridge_the_host_is_on(links: dict[str, FoundLink], bridge: str | None) -> None:
    assert replace(READY, links=links).external_bridge == bridge
