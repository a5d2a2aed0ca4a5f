"""Where an opening is put: where the drop is, after what somebody has written, before what drops the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.hostres import filtertable, firewall, firewalld, ruleset, ufw
from cfctl.hostres.firewall import NFT, Chain, Line, Needs
from tests.hostres.patients import chain, user_chain

NEEDS = Needs(("cvd-ebr", "cvd-wbr"))
DHCP = 'iifname "cvd-ebr" udp dport 67 counter accept'
OUT = 'iifname "cvd-*" counter accept'
BACK = 'oifname "cvd-*" ct state established,related counter accept'


def found(*chains: Chain, needs: Needs | None = NEEDS) -> list[tuple[str, str]]:
    return [(edit.action, edit.opening.name) for edit in firewall.edits(chains, needs)]


def mine(hook: str, *rules: str, policy: str = "drop", table: str = "inet mine") -> Chain:
    return replace(chain(hook, hook, *rules, table=table), policy=policy)


@pytest.mark.parametrize(
    "chain_",
    [
        mine("forward"),
        mine("forward", "ct state established accept"),
        mine("forward", "ct state established accept", "counter drop", policy="accept"),
        mine("forward", "reject with icmpx admin-prohibited", policy="accept"),
        mine("forward", 'log prefix "no: " drop', policy="accept"),
        mine("forward", "return"),
    ],
)
def test_what_drops_the_rest_is_opened(chain_: Chain) -> None:
    name = "opening inet mine forward".removeprefix("opening ")
    assert found(chain_) == [("create", f"{name}: {OUT}"), ("create", f"{name}: {BACK}")]


@pytest.mark.parametrize(
    "chain_",
    [
        mine("forward", policy="accept"),
        mine("forward", "ip saddr 10.0.0.1 drop", policy="accept"),
        mine("forward", "ip daddr 10.0.0.1 reject with icmp port-unreachable", policy="accept"),
        mine("forward", "counter accept"),
        mine("forward", "counter accept", "drop", policy="accept"),
        mine("output"),
        mine("forward", table="bridge mine"),
        # Without a prefix, guests have no IPv6.
        mine("forward", table="ip6 filter"),
        mine("input", table="ip6 filter"),
        # Those have a way of their own.
        mine("forward", table="inet firewalld"),
        mine("forward", "counter jump ufw-before-forward"),
        mine("input", "counter jump INPUT_direct"),
    ],
)
def test_what_needs_no_opening(chain_: Chain) -> None:
    assert found(chain_) == []


def test_a_chain_that_ends_in_another_that_drops() -> None:
    forward = mine("forward", "tcp dport 22 accept", "counter jump LOGDROP", policy="accept", table="ip filter")
    drop = user_chain("LOGDROP", 'log prefix "gone: "', "drop")
    assert [name for _, name in found(forward, drop)] == [f"ip filter forward: {OUT}", f"ip filter forward: {BACK}"]
    assert firewall.end(forward, (forward, drop)) == 1
    # Two that jump to each other, as no kernel allows, and one that goes nowhere.
    loop = user_chain("LOGDROP", "jump forward")
    assert found(forward, loop) == []
    assert found(mine("forward", "jump nowhere", policy="accept")) == []


def test_docker_gets_it_where_it_leaves_rules_alone() -> None:
    forward = chain("FORWARD", "forward", "counter jump DOCKER-USER", "counter jump DOCKER-FORWARD")
    user = user_chain("DOCKER-USER", "ip daddr 10.0.0.1 drop", "counter return")
    assert {name.partition(":")[0] for _, name in found(forward, user)} == {"ip filter DOCKER-USER"}
    assert firewall.end(user, (forward, user)) == 1
    # Nothing leads there (any more).
    assert {name.partition(":")[0] for _, name in found(replace(forward, rules=()), user)} == {"ip filter FORWARD"}


def test_what_docker_forwards_to_is_for_docker_to_say() -> None:
    chains = chain("FORWARD", "forward", "counter jump DOCKER-USER"), user_chain("DOCKER-USER", "counter return")
    bridges = firewall.like_docker(["eth0", "br-0123456789ab", "br-lan", "br-ex", "docker0", "br0"])
    assert bridges == ("br-ex", "br-lan")
    wanted = [edit.opening.rule for edit in firewall.edits(chains, NEEDS, bridges)]
    # First the uplinks that only look like its bridges, then what is Docker's, then all the rest.
    assert wanted == [
        'iifname "cvd-*" oifname "br-ex" counter accept',
        'iifname "cvd-*" oifname "br-lan" counter accept',
        'iifname "cvd-*" oifname "docker0" counter return',
        'iifname "cvd-*" oifname "br-*" counter return',
        OUT,
        BACK,
    ]
    there = user_chain("DOCKER-USER", *(f'{rule} comment "cfctl"' for rule in wanted[2:]), "counter return")
    again = firewall.edits((chains[0], there), NEEDS, bridges)
    assert [edit.action for edit in again] == ["create", "create", "change", "change", "change", "change"]
    plain = firewall.edits((chains[0], there), NEEDS)
    assert plain == []


def test_an_opening_made_by_hand_is_enough() -> None:
    assert found(mine("forward", OUT, "tcp dport 22 accept")) == [("create", f"inet mine forward: {BACK}")]
    assert found(mine("forward", OUT, BACK), needs=None) == []
    assert len(found(mine("forward", "drop", OUT, BACK))) == 2


def test_a_drop_that_comes_later_is_not_overruled() -> None:
    ours = [f'{rule} comment "cfctl"' for rule in (OUT, BACK)]
    assert found(mine("forward", *ours)) == []
    assert found(mine("forward", *ours, "tcp dport 22 accept")) == []
    for later in ('iifname "cvd-*" drop', "ip daddr 10.0.0.1 reject", "tcp dport 25 jump no-mail"):
        moved = firewall.edits((mine("forward", *ours, later),), NEEDS)
        assert [edit.action for edit in moved] == ["change", "change"]
        assert all("overrule" in edit.opening.reason for edit in moved)
    unreachable = firewall.edits((mine("forward", "drop", *ours, policy="accept"),), NEEDS)
    assert [edit.opening.reason for edit in unreachable] == ["no packet gets as far"] * 2


_OURS = tuple(f'{rule} comment "cfctl"' for rule in (OUT, BACK, 'iifname "cvd-x" accept'))
_FOREIGN = ("drop", "accept", "tcp dport 22 drop", "tcp dport 22 accept", "counter reject", "return")
_RULES = st.lists(st.sampled_from(_OURS + _FOREIGN), max_size=6)


def _after(chain_: Chain, edits: list[firewall.Edit]) -> Chain:
    """Return a chain as its edits leave it; what nft does with them is tried with real rules elsewhere."""
    at = firewall.end(chain_, (chain_,))
    gone = {line for edit in edits for line in edit.remove}
    added = [Line(edit.opening.rule, 100 + n, marked=True) for n, edit in enumerate(edits) if edit.add]
    kept = [line for line in chain_.rules[:at] if line not in gone]
    return replace(chain_, rules=(*kept, *added, *(line for line in chain_.rules[at:] if line not in gone)))


@given(_RULES, st.sampled_from(["drop", "accept"]))
def test_whatever_there_is_once_is_enough(rules: list[str], policy: str) -> None:
    before = mine("forward", *rules, policy=policy)
    after = _after(before, firewall.edits((before,), NEEDS))
    assert firewall.edits((after,), NEEDS) == []
    # What is not ours is as it was, and a tear-down takes out all that is ours.
    foreign = [line for line in before.rules if not line.marked]
    assert [line for line in after.rules if not line.marked] == foreign
    assert list(_after(after, firewall.edits((after,), None)).rules) == foreign


def test_ipv6_needs_its_router() -> None:
    needs = Needs(("cvd-ebr",), ("cvd-ebr",))
    (chain_,) = filtertable.parse("ip6tables-nft", "-P INPUT DROP\n")
    assert [name.partition(": ")[2] for _, name in found(chain_, needs=needs)] == [
        "-i cvd-ebr -p udp -m udp --dport 547 -j ACCEPT",
        *(f"-i cvd-ebr -p ipv6-icmp -m icmp6 --icmpv6-type {number} -j ACCEPT" for number in (133, 135, 136)),
    ]
    # By version, iptables has another name for the protocol.
    opened = "".join(f"-A INPUT {name.partition(': ')[2]}\n" for _, name in found(chain_, needs=needs))
    opened = opened.replace("ipv6-icmp", "icmpv6").replace("-j", "-m comment --comment cfctl -j")
    assert found(*filtertable.parse("ip6tables-nft", f"-P INPUT DROP\n{opened}"), needs=needs) == []


def test_a_drop_that_is_meant_is_named() -> None:
    chains = (mine("forward", 'iifname "cvd-*" drop', OUT, 'iifname "eth0" drop'),)
    assert firewall.meant(chains) == ['inet mine forward: iifname "cvd-*" drop']


def test_the_script_for_iptables_counts_right() -> None:
    listed = """-P INPUT ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -i cvd-old -m comment --comment cfctl -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A INPUT -i cvd-ebr -p udp -m udp --dport 67 -m comment --comment cfctl -j ACCEPT
"""
    chains = filtertable.parse("iptables-nft", listed)
    assert list(filtertable.script_lines(firewall.edits(chains, NEEDS), chains)) == [
        "-D INPUT 4",
        "-D INPUT 2",
        "-I INPUT 2 -i cvd-ebr -p udp -m udp --dport 67 -m comment --comment cfctl -j ACCEPT",
        "-I INPUT 3 -i cvd-wbr -p udp -m udp --dport 67 -m comment --comment cfctl -j ACCEPT",
    ]


def test_what_nft_lists() -> None:
    text = """table inet mine { # handle 4
\tset many { # handle 9
\t\ttype ipv4_addr
\t}
\tchain input { # handle 1
\t\ttype filter hook input priority filter; policy drop;
\t\tip saddr @many drop # handle 5
\t\tiifname "cvd-ebr" udp dport 67 counter accept comment "cfctl" # handle 6
\t}
\tchain dstnat { # handle 2
\t\ttype nat hook input priority 100; policy accept;
\t}
}
"""
    chains = ruleset.parse("inet mine", text)
    assert chains == (
        Chain(
            NFT, "inet mine", "input", "input", "drop", (Line("ip saddr @many drop", 5), Line(DHCP, 6, marked=True))
        ),
        Chain(NFT, "inet mine", "dstnat"),
    )


def test_ufw_remembers_its_rules(tmp_path: Path) -> None:
    assert ufw.read(tmp_path) is None
    (tmp_path / "ufw.conf").write_text("LOGLEVEL=low\nENABLED=yes\n")
    (tmp_path / "user.rules").write_text(
        "### tuple ### allow udp 67 0.0.0.0/0 any 0.0.0.0/0 in_cvd-ebr comment=636663746c\n"
        "### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_cvd-ebr comment=6d696e65\n"
        "### tuple ### route:allow any any 0.0.0.0/0 any 0.0.0.0/0 in_cvd-+ comment=636663746c\n"
    )
    seen = ufw.read(tmp_path)
    assert seen == ufw.Found(
        on=True, rules=("allow in on cvd-ebr proto udp to any port 67", "route allow in on cvd-+")
    )
    missing = "allow in on cvd-wbr proto udp to any port 67"
    assert [(action, opening.rule) for action, opening in ufw.edits(seen, NEEDS)] == [("create", missing)]
    assert [(action, opening.rule) for action, opening in ufw.edits(seen, None)] == [
        ("remove", rule) for rule in seen.rules
    ]
    off = replace(seen, on=False)
    assert [action for action, _ in ufw.edits(off, NEEDS)] == ["remove", "remove"]


def test_a_zone_of_somebody_else_is_his_decision() -> None:
    nothing = firewalld.Found(on=True, files={})
    assert [action for action, _ in firewalld.edits(nothing, NEEDS)] == ["create", "create"]
    assert firewalld.edits(replace(nothing, others=("trusted",)), NEEDS) == []
    named = replace(nothing, files={"zones/cuttlefish.xml": "<zone/>"})
    assert firewalld.edits(named, NEEDS) == []
    assert firewalld.edits(named, None) == []
    assert not named.ours


def test_firewalld_opens_no_dns_and_ipv6_only_when_needed() -> None:
    zone, policy = firewalld.wanted(NEEDS).values()
    assert '<service name="dhcp"/>' in zone
    assert "dns" not in zone
    assert "port" not in zone
    assert 'egress-zone name="ANY"' in policy
    assert 'port="547"' in firewalld.wanted(Needs(("cvd-ebr",), ("cvd-ebr",)))["zones/cuttlefish.xml"]


# -- iptables-legacy ---------------------------------------------------------------------------------------

_LEGACY = """-P INPUT DROP
-P FORWARD DROP
-N CFCTL_FORWARD
-A FORWARD -m comment --comment cfctl -j CFCTL_FORWARD
-A FORWARD -d 203.0.113.3/32 -j DROP
-A CFCTL_FORWARD -i cvd-+ -o cvd-+ -m comment --comment cfctl -j DROP
"""


def test_legacy_rules_are_named_as_their_own() -> None:
    """Where both sorts drop, each opening is told from the other."""
    chains = filtertable.parse("iptables-legacy", _LEGACY)
    assert [str(chain) for chain in chains] == ["iptables-legacy filter INPUT", "iptables-legacy filter FORWARD"]
    assert str(filtertable.parse("iptables-nft", _LEGACY)[0]) == "ip filter INPUT"


def test_the_iptables_backend_is_nobody_elses() -> None:
    """Its chains, and what leads there, are no openings: a tear-down of openings leaves them to their own code."""
    chains = filtertable.parse("iptables-legacy", _LEGACY)
    assert firewall.edits(chains, None) == []


def test_iptables_that_keeps_guests_apart_lets_them_only_out() -> None:
    """Docker puts its chain above the one that keeps them apart."""
    chains = filtertable.parse("iptables-legacy", _LEGACY)
    for apart, first in ((True, "-i cvd-+ ! -o cvd-+ -j ACCEPT"), (False, "-i cvd-+ -j ACCEPT")):
        edits = firewall.edits(chains, firewall.Needs(("cvd-ebr",), apart=apart))
        assert next(edit.opening.rule for edit in edits if edit.chain.name == "FORWARD") == first


# -- drops of DHCP -----------------------------------------------------------------------------------------

_OURS_IN = tuple(f'iifname "{bridge}" udp dport 67 counter accept comment "cfctl"' for bridge in NEEDS.dhcp)


@pytest.mark.parametrize(
    "rule",
    [
        "udp dport 67 drop",
        "udp dport 67 counter drop",
        "udp dport { 53, 67-68 } reject",
        "udp dport 1-1023 drop",
        "meta l4proto udp drop",
        "ip protocol udp counter reject with icmp port-unreachable",
        'udp dport 67 log prefix "no: " drop',
        'iifname "cvd-wbr" udp dport 67 drop',
        'iifname "cvd-*" drop',
    ],
)
@pytest.mark.parametrize("policy", ["accept", "drop"])
def test_a_drop_of_dhcp_is_named(rule: str, policy: str) -> None:
    ours = _OURS_IN if policy == "drop" else ()
    others = (
        "ct state established,related accept",
        "ct state vmap { established : accept, related : accept, invalid : drop }",
        'iif "lo" accept',
        'iifname "eth0" accept',
        "tcp dport 22 accept",
        "udp dport 53 accept",
        "ip saddr 10.0.0.0/8 accept",
        "icmp type echo-request accept",
        "ip daddr 10.0.0.1 drop",
    )
    before = mine("input", *others, rule, *ours, policy=policy)
    assert firewall.shut((before,), NEEDS) == [f"inet mine input: {rule}"]
    let_in = mine("input", *_OURS_IN, rule, policy=policy)
    assert firewall.shut((let_in,), NEEDS) == []


@pytest.mark.parametrize(
    "rules",
    [
        ("udp dport 68 drop",),
        ("udp dport 667 drop",),
        ("udp dport { 53, 68 } drop",),
        ("udp dport != 67 drop",),
        ("udp sport 67 drop",),
        ("tcp dport 67 drop",),
        ("ip saddr 10.0.0.0/8 udp dport 67 drop",),
        ('iifname "eth0" udp dport 67 drop',),
        ('iifname != "eth0" udp dport 67 drop',),
        ('iifname { "eth0", "eth1" } udp dport 67 drop',),
        ("udp dport 67 limit rate over 10/second drop",),
        ("meta l4proto { tcp, udp } th dport 67 drop",),
        # Let in before.
        ("udp dport 67 accept", "meta l4proto udp drop"),
        ('iifname "cvd-*" accept', "meta l4proto udp drop"),
        ('iifname { "cvd-ebr", "cvd-wbr" } udp dport 67 accept', "meta l4proto udp drop"),
        ('iifname != "eth0" accept', "meta l4proto udp drop"),
        ("ct state new accept", "meta l4proto udp drop"),
        ("fib daddr type broadcast accept", "meta l4proto udp drop"),
        ("ip saddr 0.0.0.0 accept", "meta l4proto udp drop"),
        ("udp dport vmap { 67 : accept, 53 : accept }", "meta l4proto udp drop"),
        ("jump nowhere", "meta l4proto udp drop"),
        ("udp dport 67 return", "meta l4proto udp drop"),
        # What drops all the rest: the opening comes before it, or nobody gets as far.
        ("drop", "udp dport 67 drop"),
        ("accept", "udp dport 67 drop"),
    ],
)
def test_what_may_be_no_drop_of_dhcp(rules: tuple[str, ...]) -> None:
    assert firewall.shut((mine("input", *rules),), NEEDS) == []


def test_a_drop_of_dhcp_elsewhere() -> None:
    drop = "udp dport 67 drop"
    assert firewall.shut((mine("forward", drop), mine("input", drop, table="bridge x")), NEEDS) == []
    assert firewall.shut((mine("input", drop, table="ip6 filter"),), NEEDS) == []
    assert firewall.shut((mine("input", drop, "jump ufw-before-input"),), NEEDS) == []
    # On somebody else's bridge the host gives no addresses.
    assert firewall.shut((mine("input", drop),), Needs()) == []
    inner = user_chain("services", "udp dport 53 accept", drop)
    jump = mine("input", "meta l4proto udp jump services", table="ip filter")
    assert firewall.shut((jump, inner), NEEDS) == [f"ip filter services: {drop}"]
    assert firewall.shut((mine("input", "tcp dport 1 jump services", table="ip filter"), inner), NEEDS) == []


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("-p udp -j DROP", True),
        ("-p udp -m udp --dport 67 -j REJECT --reject-with icmp-port-unreachable", True),
        ("-p udp -m udp --dport 67:68 -j DROP", True),
        ("-p udp -m multiport --dports 53,67 -j DROP", True),
        ('-p udp -m udp --dport 67 -m comment --comment "no DHCP" -j DROP', True),
        ("-i cvd-+ -p udp -j DROP", True),
        ("-p udp -m udp --dport 53 -j DROP", False),
        ("-i eth0 -p udp -j DROP", False),
        ("! -i lo -p udp -j DROP", False),
        ("-s 10.0.0.0/8 -p udp -j DROP", False),
        ("-p tcp -m tcp --dport 67 -j DROP", False),
        ("-p udp -j LOG", False),
        ("-p udp -m udp --dport 67 -j ACCEPT", False),
        ("-p udp -m udp ! --dport 67 -j DROP", False),
    ],
)
def test_a_drop_of_dhcp_in_iptables(rule: str, *, named: bool) -> None:
    before = "-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
    before += "-A INPUT -s 10.0.0.0/8 -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n"
    chains = filtertable.parse("iptables-legacy", f"-P INPUT DROP\n{before}-A INPUT {rule}\n")
    assert firewall.shut(chains, NEEDS) == ([f"iptables-legacy filter INPUT: {rule}"] if named else [])
