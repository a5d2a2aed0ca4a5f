"""Which devices are booted again, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import CfctlError
from cfctl.launch import keeper, observe, registry
from cfctl.launch.observe import Device, State
from cfctl.launch.registry import Restart
from tests.launch.devices import device

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def ago(**delta: float) -> str:
    return (NOW - timedelta(**delta)).isoformat()


def down(state: State = State.STALE, **fields: Any) -> Device:
    return device(state, **{"started_at": ago(hours=1), "boot_id": "this", "restart": "always", **fields})


def decide(found: Device) -> keeper.Decision:
    return keeper.decide(found, now=NOW, boot_id="this")


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (down(State.STALE), "it died"),
        (down(State.STALE, restart="on-failure"), "it died"),
        (down(State.FAILED), "its boot failed"),
        (down(State.UNREACHABLE), "it does not answer"),
        (down(State.STALE, boot_id="before"), "the host was booted again"),
        (down(State.STALE, boot_id=None), "it died"),  # of a cfctl that did not write it down
    ],
)
def test_comes_back_at_once(found: Device, why: str) -> None:
    assert decide(found) == keeper.Decision("phone", NOW, why)
    assert decide(found).due(NOW)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (down(restart="no"), "it has no policy to be booted again"),
        (down(kept_down=True), "it was stopped on purpose"),
        (down(State.FAILED, kept_down=True), "it was stopped on purpose"),
        (down(started_at=None), "it was never started"),
        (down(boot_id="before", restart="on-failure"), "the host was booted again, and its policy is on-failure"),
        *((down(state), f"it is {state.value}") for state in (State.RUNNING, State.SUSPENDED, State.BOOTING)),
        *((down(state), f"it is {state.value}") for state in (State.STOPPING, State.PREPARING, State.STOPPED)),
    ],
)
def test_is_left_as_it_is(found: Device, why: str) -> None:
    assert decide(found) == keeper.Decision("phone", None, why)
    assert not decide(found).due(NOW)


@pytest.mark.parametrize(("restarts", "seconds"), [(0, 0), (1, 10), (2, 20), (3, 40), (5, 160), (6, 300), (999, 300)])
def test_waits_longer_each_time(restarts: int, seconds: int) -> None:
    found = decide(down(restarts=restarts, started_at=ago(seconds=0)))
    assert found.at == NOW + timedelta(seconds=seconds)


def test_what_cannot_even_be_started_waits_as_well() -> None:
    # The network is missing, say: it was tried just now, and started long ago.
    found = decide(down(restarts=3, tried_at=ago(seconds=0)))
    assert found.at == NOW + timedelta(seconds=40)
    found = decide(down(restarts=3, tried_at=ago(seconds=0), boot_id="before"))
    assert found.at == NOW + timedelta(seconds=40)


def test_a_device_that_was_up_for_long_comes_back_at_once() -> None:
    assert decide(down(restarts=9, booted_at=ago(minutes=10), started_at=ago(minutes=11))).due(NOW)
    assert not decide(down(restarts=9, booted_at=ago(minutes=1), started_at=ago(minutes=2))).due(NOW)


def test_a_clock_that_was_set_back_keeps_nothing_down() -> None:
    assert decide(down(restarts=9, started_at=ago(hours=-5))).due(NOW)


@given(
    st.sampled_from(State),
    st.sampled_from(Restart),
    st.booleans(),
    st.integers(0, 10**9),
    st.none() | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | st.just("rubbish"),
)
def test_decides_about_anything(
    state: State, policy: Restart, kept_down: bool, restarts: int, started_at: str | None
) -> None:
    found = decide(down(state, restart=policy.value, kept_down=kept_down, restarts=restarts, started_at=started_at))
    assert found.at is None or found.at <= NOW + timedelta(minutes=5), "nothing waits for longer than the longest"
    if kept_down or policy is Restart.NO or state is State.RUNNING:
        assert found.at is None


def test_one_round_boots_what_is_due_and_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [
        down(name="later", restarts=3, started_at=ago(seconds=1)),
        down(name="broken"),
        down(name="fine"),
        device(State.STOPPED, name="off"),
    ]
    monkeypatch.setattr(observe, "devices", lambda: devices)
    monkeypatch.setattr(registry, "boot_id", lambda: "this")
    booted = []

    def boot(name: str) -> None:
        booted.append(name)
        if name == "broken":
            raise CfctlError("no luck")

    found = keeper.tend(now=NOW, timeout=1, boot=boot)
    assert booted == ["broken", "fine"]
    assert [decision.name for decision in found] == ["broken", "fine", "later"]
