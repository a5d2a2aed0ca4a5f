"""Which program makes the rules."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from cfctl import config
from cfctl.errors import HostLacks, MissingCommand
from cfctl.hostres import backends, iptables, nfnetlink
from cfctl.hostres.iptables import Iptables

NOTHING = nfnetlink.Names(frozenset(), frozenset())


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Return what the host has, to be changed: programs, the sort of ``iptables``, the kernel's nftables."""
    has: dict[str, object] = {"programs": {"nft"}, "plain": None, "nftables": NOTHING, "tables": []}

    def find(name: str) -> str | None:
        return name if name in has["programs"] else None  # type: ignore[operator]

    monkeypatch.setattr("cfctl.process.find", find)
    monkeypatch.setattr(iptables, "plain", lambda: has["plain"])
    monkeypatch.setattr(iptables, "legacy_tables", lambda _="iptables": has["tables"])
    monkeypatch.setattr(nfnetlink, "names", lambda: has["nftables"])
    return has


def chosen(rules: str = "auto") -> str:
    return backends.choose(config.load(flags={"host.rules": rules}, environ={})).backend.NAME


def programs(*variants: str) -> set[str]:
    return {f"iptables-{variant}{tool}" for variant in variants for tool in ("", "-save", "-restore")}


def test_nft_where_it_works(host: dict[str, object]) -> None:
    assert chosen() == "nft"
    host["programs"] = {"nft", *programs("legacy", "nft")}
    host["tables"] = ["filter"]
    assert chosen() == "nft"


@pytest.mark.parametrize(
    ("plain", "tables", "name"),
    [
        ("nft", [], "iptables-nft"),
        ("legacy", [], "iptables-legacy"),
        ("nft", ["nat"], "iptables-legacy"),
        (None, [], "iptables-legacy"),
    ],
)
def test_iptables_as_the_host_uses_it(
    host: dict[str, object], plain: str | None, tables: list[str], name: str
) -> None:
    host |= {"programs": programs("legacy", "nft"), "plain": plain, "tables": tables}
    assert chosen() == name
    # Asked for, it is taken though there is nft.
    host["programs"] = {"nft", *programs("legacy", "nft")}
    assert chosen("iptables") == name
    assert chosen() == "nft"


def test_a_kernel_without_nftables(host: dict[str, object]) -> None:
    host |= {"programs": {"nft", *programs("legacy")}, "nftables": None}
    choice = backends.choose(config.load(environ={}))
    assert (choice.backend.NAME, choice.reason) == ("iptables-legacy", "this kernel has no nf_tables")
    assert chosen("nft") == "nft"


def test_no_program_at_all(host: dict[str, object]) -> None:
    host["programs"] = set()
    for rules, missing in (("auto", "nft"), ("nft", "nft"), ("iptables", "iptables")):
        with pytest.raises(MissingCommand, match=f"'{missing}' is not installed"):
            chosen(rules)


def test_what_iptables_cannot_do() -> None:
    backends.require(backends.Choice(Iptables("legacy"), "why"), routed=False)
    backends.require(backends.Choice(backends.WITH_NFT), routed=True)
    with pytest.raises(HostLacks) as caught:
        backends.require(backends.Choice(Iptables("legacy"), "the program nft is not installed"), routed=True)
    assert str(caught.value) == (
        "iptables cannot route what arrives on a bridge\n"
        "host.ipv4_bridge and host.ipv6_bridge need nft when they are false, and the program nft is not installed.\n"
        "Install nftables 1.0.8 or later. Or let the bridge pass these frames: host.ipv4_bridge = true, "
        "host.ipv6_bridge = true"
    )


class _Socket:
    """A kernel that answers each question with one message."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)

    def __enter__(self) -> _Socket:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def bind(self, _: object) -> None:
        pass

    def send(self, _: bytes) -> None:
        pass

    def recv(self, _: int) -> bytes:
        return self.answers.pop(0)


def _message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def _error(code: int) -> bytes:
    return _message(2, struct.pack("=i", -code))


def _table(name: str, flags: int = 0) -> bytes:
    value = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(value), 1) + value + b"\0" * (-len(value) % 4)
    return _message(0x0A00, struct.pack("=BBH", 2, 0, 0) + attribute, flags)


DONE = _message(3, b"\0" * 4)


def test_a_kernel_that_knows_no_nftables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket", lambda *_: _Socket(_error(errno.EINVAL)))
    assert nfnetlink.names() is None


def test_an_ordinary_user_may_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket", lambda *_: _Socket(_error(errno.EPERM)))
    with pytest.raises(PermissionError):
        nfnetlink.names()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert backends.read(["ip cuttlefish_nat"]) is None


def test_a_list_that_changed_meanwhile_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed = _table("gone", flags=0x10) + DONE
    monkeypatch.setattr("socket.socket", lambda *_: _Socket(disturbed, _table("one") + DONE, DONE))
    assert nfnetlink.names() == (frozenset({"ip one"}), frozenset())
