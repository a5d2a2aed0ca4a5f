"""What ``nft -a -n -s list table`` prints, and the transaction that is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import process
from cfctl.errors import CfctlError, CommandFailed, HostLacks
from cfctl.hostres import nft
from cfctl.hostres.nft import Chain, Rule

#: As nft 1.0.6 prints it.
LISTED = """\
table ip cuttlefish_nat { # handle 4
	comment "cfctl"
	set s { # handle 9
		type ipv4_addr
		elements = { 1.2.3.4 }
	}

	chain postrouting { # handle 1
		type nat hook postrouting priority 100; policy accept;
		ip saddr 192.168.98.0/24 masquerade comment "cfctl" # handle 2
		ip saddr 192.168.97.0/30 masquerade # handle 3
		counter accept comment "a # handle 7" # handle 5
	}
}
"""


def test_parse() -> None:
    table = nft.parse(nft.NAT, LISTED)
    assert table.marked
    assert table.others == ("set s",)
    assert table.chains == (Chain("postrouting", "type nat hook postrouting priority 100; policy accept;"),)
    assert [(rule.rule.text, rule.handle, rule.marked) for rule in table.rules] == [
        ("ip saddr 192.168.98.0/24 masquerade", 2, True),
        ("ip saddr 192.168.97.0/30 masquerade", 3, False),
        ('counter accept comment "a # handle 7"', 5, False),
    ]


def test_a_marked_rule_marks_its_table() -> None:
    """A kernel before 5.10 keeps no comment of a table."""
    assert nft.parse(nft.NAT, LISTED.replace('\tcomment "cfctl"\n', "", 1)).marked
    bare = LISTED.replace(' comment "cfctl"', "").replace('\tcomment "cfctl"\n', "")
    assert not nft.parse(nft.NAT, bare).marked


def test_someone_elses_comment_is_no_mark() -> None:
    table = nft.parse(nft.NAT, LISTED.replace('"cfctl"', '"firewall"'))
    assert not table.marked
    assert not any(rule.marked for rule in table.rules)


def listed(table: nft.Table, *, marked: bool = True) -> str:
    """Print a table as nft does."""
    comment = ' comment "cfctl"' if marked else ""
    lines = [f"table {table.id} {{ # handle 1", *(['\tcomment "cfctl"'] if marked else [])]
    for chain in table.chains:
        lines += [f"\tchain {chain.name} {{ # handle 1", f"\t\t{chain.hook}"]
        rules = [rule for rule in table.rules if rule.chain == chain.name]
        lines += [f"\t\t{rule.text}{comment} # handle {number}" for number, rule in enumerate(rules, 2)]
        lines += ["\t}", ""]
    return "\n".join([*lines[:-1], "}"]) + "\n"


SUBNETS = st.lists(st.integers(0, 63).map(lambda i: f"192.168.97.{4 * i}/30"), unique=True, max_size=8)


@given(SUBNETS, st.sampled_from([(), nft.route("cvd-etap-01", nft.IPV4)]), st.booleans(), st.booleans())
def test_a_table_is_read_back_as_it_was_written(
    subnets: list[str], routed: tuple[Rule, ...], isolation: bool, marked: bool
) -> None:
    for table in nft.tables(subnets, routed=routed, guest_isolation=isolation):
        found = nft.parse(table.id, listed(table, marked=marked))
        assert (found.id, found.chains) == (table.id, table.chains)
        assert tuple(rule.rule for rule in found.rules) == table.rules
        assert found.marked is marked
        assert found.others == ()


@given(st.text(max_size=300))
def test_any_text_is_parsed(text: str) -> None:
    nft.parse(nft.NAT, text)


def test_the_empty_table_is_ours_if_the_other_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tables keep no comment: both are made in one transaction, and the other one has no rule to mark."""
    nat, bridge, _ = nft.tables(["192.168.98.0/24"], guest_isolation=True)
    texts = {nat.id: listed(nat).replace('\tcomment "cfctl"\n', ""), bridge.id: listed(bridge, marked=False)}

    def run(argv: list[str], **_: object) -> process.Result:
        text = texts.get(" ".join(argv[6:]))
        missing = "Error: No such file or directory; did you mean table\n"
        return process.Result(tuple(argv), 0 if text else 1, text or "", "" if text else missing)

    monkeypatch.setattr(process, "run", run)
    assert {name: table.marked for name, table in nft.read().items()} == {nft.NAT: True, nft.BRIDGE: True}
    texts[nat.id] = listed(nat, marked=False)
    assert {name: table.marked for name, table in nft.read().items()} == {nft.NAT: False, nft.BRIDGE: False}


def test_a_host_with_no_other_tables_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = nft.tables(["192.168.98.0/24"], guest_isolation=True)
    # One that came in the meantime is none of ours.
    text = "table ip docker { # handle 9\n\tchain nat { # handle 1\n\t}\n}\n" + "".join(map(listed, wanted))
    monkeypatch.setattr(process, "run", lambda argv, **_: process.Result(tuple(argv), 0, text, ""))
    ids = [table.id for table in wanted]
    singly = {table.id: nft.parse(table.id, listed(table)) for table in wanted}
    assert nft.read(ids, alone=True) == singly


def test_lines_of_a_transaction() -> None:
    rule = Rule("postrouting", "ip saddr 192.168.97.0/30 masquerade")
    assert nft.add(nft.NAT, rule) == (
        'add rule ip cuttlefish_nat postrouting ip saddr 192.168.97.0/30 masquerade comment "cfctl"'
    )
    assert nft.delete(nft.NAT, nft.FoundRule(rule, 7, marked=True)) == (
        "delete rule ip cuttlefish_nat postrouting handle 7"
    )


def test_a_refused_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(argv: list[str], **_: object) -> None:
        raise CommandFailed(argv, 1, "Could not process rule: No such file or directory\n")

    monkeypatch.setattr(process, "run", refuse)
    with pytest.raises(CfctlError) as caught:
        nft.transaction(["delete table ip x"])
    assert str(caught.value) == (
        "the firewall rules could not be changed; they are as before\n"
        "Could not process rule: No such file or directory\n"
        "If the kernel lacks nf_tables or its NAT: modprobe -a nf_tables nft_masq nft_chain_nat"
    )


def test_rules_that_route_instead_of_bridging() -> None:
    """As upstream's script writes them (``ether type ip``), in the numbers that ``nft -n`` prints."""
    assert nft.route("cvd-wtap-07", nft.IPV4) == (
        Rule("prerouting", 'iifname "cvd-wtap-07" ether type 0x0800 meta broute set 1 accept'),
        Rule("forward", 'oifname "cvd-wtap-07" ether type 0x0800 drop'),
    )
    assert [rule.text.split()[4] for rule in nft.route("cvd-wtap-07", nft.IPV6)] == ["0x86dd", "0x86dd"]


#: What nft 1.0.6 says (shortened).
NO_BROUTE = "/dev/stdin:1:71-87: Error: syntax error, unexpected broute, known keys are length, protocol\n"


def test_a_host_that_knows_no_broute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def refuse(argv: list[str], **kwargs: object) -> None:
        asked.append((argv, kwargs["stdin"]))
        raise CommandFailed(argv, 1, NO_BROUTE)

    monkeypatch.setattr(process, "run", refuse)
    with pytest.raises(HostLacks) as caught:
        nft.require_broute()
    chain = "chain prerouting { type filter hook prerouting priority -250; meta broute set 1 accept; }"
    assert asked == [(["nft", "--check", "-f", "-"], f"table bridge cfctl_check {{ {chain}; }}\n")]
    assert str(caught.value) == (
        "this host cannot route what arrives on a bridge (meta broute)\n"
        "host.ipv4_bridge and host.ipv6_bridge need it when they are false.\n"
        f"{NO_BROUTE}"
        "It needs nftables 1.0.8 and Linux 6.4 with nft_meta_bridge (modprobe nft_meta_bridge).\n"
        "Or let the bridge pass these frames: host.ipv4_bridge = true, host.ipv6_bridge = true"
    )
