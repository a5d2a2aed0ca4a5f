"""Lazy mode as data: which taps there are to be, what is written down, and what travels over the socket."""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import config, errors, paths
from cfctl.errors import CfctlError, DevicesUp, NumberTaken, UsageError
from cfctl.hostres import desired, host, lazy, plan, tap_proof, tap_protocol
from cfctl.hostres.desired import State
from cfctl.hostres.observed import Observed
from cfctl.instance import Instance
from tests.hostres import hosts

NUMBERS = st.sets(st.integers(1, 128), max_size=6)


def settings(**flags: object) -> config.Settings:
    chosen = {f"host.{name}": value for name, value in flags.items()}
    # Not what this machine has.
    return config.load(flags=chosen, environ={}, upstream_file=Path("/nonexistent"))


def lazily(count: int, active: set[int]) -> State:
    return desired.state(settings(instances=count, lazy=True), active=active)


@given(NUMBERS)
def test_only_active_numbers_have_anything(active: set[int]) -> None:
    state = lazily(128, active)
    everything = desired.build(128)
    taps = {tap for number in active for tap in Instance(number).taps}
    assert set(state.links) == {"cvd-ebr", "cvd-wbr", *taps}
    assert all(everything.links[name] == link for name, link in state.links.items())
    assert len(state.tables["ip cuttlefish_nat"].rules) == 2 + 2 * len(active)
    assert (state.instances, state.servers.keys()) == (128, everything.servers.keys())
    assert state.sysctls == everything.sysctls


@given(NUMBERS, NUMBERS)
def test_from_some_active_numbers_to_others(before: set[int], after: set[int]) -> None:
    state = lazily(128, before)
    found = replace(hosts.ready(state), lazy=state.lazy)
    assert found.numbers == before
    assert found.instances == 128
    assert plan.compute(state, found).changes == ()
    changes = plan.compute(lazily(128, after), found).changes
    names = {(c.action, c.name) for c in changes if c.kind == "tap"}
    assert names == {
        (action, tap)
        for action, numbers in (("create", after - before), ("remove", before - after))
        for number in numbers
        for tap in Instance(number).taps
    }
    assert {c.kind for c in changes} <= {"tap", "rule"}


def test_a_number_above_the_rest_may_stay() -> None:
    state = desired.build(2, active={7})
    assert {f"cvd-etap-{n:02d}" for n in (1, 2, 7)} <= set(state.links)
    assert "cvd-etap-03" not in state.links
    assert state.instances == 2


def test_the_record_comes_and_goes() -> None:
    state = lazily(4, set())
    assert ("create", "mode lazy") in [(c.action, c.object) for c in plan.compute(state, Observed()).changes]
    ready = replace(hosts.ready(state), lazy=state.lazy)
    other = plan.compute(lazily(5, set()), ready)
    assert [(c.action, c.object) for c in other.changes] == [("change", "mode lazy")]
    assert ("remove", "mode lazy") in [(c.action, c.object) for c in plan.compute(State(), ready).changes]
    assert ("remove", "mode lazy") in [(c.action, c.object) for c in plan.compute(desired.build(4), ready).changes]
    # Nothing but the record is left of a set-up that was killed at its first step.
    assert plan.compute(state, Observed(lazy=state.lazy)).state == "drift"


def test_the_record_says_all_that_taps_follow_from() -> None:
    chosen = settings(
        instances=0, lazy=True, bridge="br0", ipv4_bridge=False, guest_isolation=False, mobile_subnet="10.0.97.0/24"
    )
    again = lazy.parse(lazy.record(chosen))
    assert lazy.limit(again) == lazy.limit(chosen) == 128
    active = {3, 99}
    assert desired.state(again, active=active) == desired.state(chosen, active=active)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"host.instances": 1000}', '{"host.colour": 1}', '"x"'])
def test_a_damaged_record(text: str) -> None:
    with pytest.raises(CfctlError, match=r"lazy\.json is damaged"):
        lazy.parse(text)
    # A set-up writes it anew, and tells the number from the taps.
    found = replace(hosts.ready(desired.build(3)), lazy=text)
    assert found.instances == 3
    assert host._as_observed(settings(), found)["host.instances"] == 3


def test_it_stays_lazy_without_a_word_about_it() -> None:
    state = lazily(0, set())
    found = replace(hosts.ready(state), lazy=state.lazy)
    followed = host._as_observed(settings(), found)
    assert (followed["host.lazy"], followed["host.instances"]) == (True, 0)
    assert lazy.limit(followed) == 128
    # "0 from the start" is no number to set up.
    assert host._as_observed(settings(lazy=False), found)["host.instances"] == 10
    assert host._as_observed(settings(instances=7), found)["host.instances"] == 7


# -- numbers that somebody holds ----------------------------------------------------------------------------


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "lock"
    directory.mkdir()
    monkeypatch.setattr(paths, "UPSTREAM_LOCKS", (directory, tmp_path / "older"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return directory


def opened(directory: Path, number: int, *, lock: bool = True) -> int:
    fd = os.open(directory / Instance(number).lock_name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    if lock:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def test_held_numbers(locks: Path) -> None:
    (locks / Instance(2).lock_name).write_text("I")
    fd = opened(locks, 3)
    assert lazy.held(range(1, 5)) == {3}
    os.close(fd)
    assert lazy.held(range(1, 5)) == set()


def test_a_record_that_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFCTL_PATHS_RUNTIME", str(tmp_path / "run"))
    monkeypatch.setattr(paths, "SYSTEM_RUNTIME", tmp_path / "run")
    assert lazy.written() is None
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lazy.json.new").write_text("{")
    assert lazy.written() == ""
    # It is ours to remove, and ours to write.
    cut_short = Observed(lazy="")
    assert ("remove", "mode lazy") in [(c.action, c.object) for c in plan.compute(State(), cut_short).changes]
    state = lazily(3, set())
    assert ("create", "mode lazy") in [(c.action, c.object) for c in plan.compute(state, cut_short).changes]
    lazy.write(state.lazy or "")
    assert lazy.recorded() is not None
    lazy.forget()
    assert list((tmp_path / "run").iterdir()) == []


def test_only_the_holder_is_believed(locks: Path) -> None:
    fd = opened(locks, 3)
    tap_proof.require_holder(fd, 3)
    again = os.dup(fd)
    tap_proof.require_holder(again, 3)
    os.close(again)
    other = opened(locks, 3, lock=False)
    with pytest.raises(NumberTaken, match="Somebody else has locked"):
        tap_proof.require_holder(other, 3)
    # Nothing was taken away by asking.
    tap_proof.require_holder(fd, 3)
    (locks / Instance(4).lock_name).touch()
    with pytest.raises(NumberTaken, match="not that of"):
        tap_proof.require_holder(fd, 4)
    with pytest.raises(NumberTaken):
        tap_proof.require_holder(fd, 5)
    os.close(fd)
    with pytest.raises(NumberTaken, match="Nobody has locked"):
        tap_proof.require_holder(other, 3)


def test_peers_are_told_by_the_kernel() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        uid, groups = tap_proof.peer(here)
    assert uid == os.getuid()
    assert groups == {os.getgid(), *os.getgroups()}


# -- the protocol -------------------------------------------------------------------------------------------


@given(st.sampled_from(["make", "remove"]), st.integers(1, 128))
def test_requests_travel(action: str, number: int) -> None:
    request = tap_protocol.Request(action, number)  # type: ignore[arg-type]
    assert tap_protocol.decode_request(tap_protocol.encode(request)) == request


@given(st.binary(max_size=100))
def test_noise_is_no_request(raw: bytes) -> None:
    with pytest.raises(UsageError):
        tap_protocol.decode_request(raw)


@pytest.mark.parametrize("number", [-1, 0, 129, 10**12])
def test_numbers_out_of_range(number: int) -> None:
    with pytest.raises(UsageError):
        tap_protocol.decode_request(b'{"action":"make","number":%d,"version":1}' % number)


def test_errors_travel() -> None:
    tap_protocol.raise_error(tap_protocol.encode(tap_protocol.answer()))
    sent = DevicesUp("devices are up", "cvd-1", "stop them")
    with pytest.raises(DevicesUp) as caught:
        tap_protocol.raise_error(tap_protocol.encode(tap_protocol.answer(sent)))
    assert (caught.value.brief, caught.value.details, caught.value.resolution) == (
        sent.brief,
        sent.details,
        sent.resolution,
    )
    long = errors.CommandFailed(["ip"], 1, "x" * 100_000)
    assert len(tap_protocol.encode(tap_protocol.answer(long))) < tap_protocol.ANSWER_BYTES
    with pytest.raises(CfctlError, match="nothing that makes sense"):
        tap_protocol.raise_error(b"\xff")
