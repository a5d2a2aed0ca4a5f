"""What ``nft -a -n -s list table`` prints, and the transaction that is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import process
from cfctl.errors import CfctlError, CommandFailed
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


@given(SUBNETS, st.booleans(), st.booleans())
def test_a_table_is_read_back_as_it_was_written(subnets: list[str], isolation: bool, marked: bool) -> None:
    for table in nft.tables(subnets, guest_isolation=isolation):
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
