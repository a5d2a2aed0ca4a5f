"""When the watcher looks again: pure, with a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cfctl.hostres.pace import BURST_S, BUSY_S, OTHERS_S, PERIOD_S, QUIET_S, Pace


def test_looks_now_and_then() -> None:
    pace = Pace(100.0)
    assert pace.due() == 100.0 + PERIOD_S
    pace.looks(200.0)
    assert pace.due() == 200.0 + PERIOD_S


def test_a_burst_is_waited_out_but_not_for_ever() -> None:
    pace = Pace(0.0)
    pace.news(1.0)
    assert pace.due() == 1.0 + QUIET_S
    pace.news(1.1)
    assert pace.due() == 1.1 + QUIET_S
    for step in range(12, 100):
        pace.news(step / 10)
    assert pace.due() == 1.0 + BURST_S
    pace.looks(5.0)
    assert pace.due() == 5.0 + PERIOD_S


def test_rules_of_others_may_wait() -> None:
    pace = Pace(0.0)
    pace.looks(10.0)
    pace.others_news(10.1)
    assert pace.due() == 10.0 + OTHERS_S
    pace.news(10.2)
    assert pace.due() == 10.2 + QUIET_S


def test_somebody_else_is_at_work() -> None:
    pace = Pace(0.0)
    pace.looks(1.0)
    pace.busy(1.0)
    assert pace.due() == 1.0 + BUSY_S


def test_what_comes_back_again_and_again_is_mended_more_and_more_seldom() -> None:
    pace = Pace(0.0)
    now = 0.0
    delays: list[float] = []
    for _ in range(12):
        now = max(now, pace.due()) if delays else 0.0
        pace.looks(now)
        delays.append(pace.well(now, ["tap cvd-etap-01"]))
        now += delays[-1] + 0.1
    assert delays[:4] == [0.0, 0.0, 0.0, 2.0]
    assert delays == sorted(delays)
    assert delays[-1] == 300.0
    # Another thing is no worse for it once the delay is over, and in the end it is forgotten.
    assert pace.well(now, ["tap cvd-etap-02"]) == 0.0
    assert pace.well(now + 1000.0, ["tap cvd-etap-01"]) == 0.0


def test_after_mending_it_looks_again() -> None:
    pace = Pace(0.0)
    pace.looks(1.0)
    pace.well(1.0, ["bridge cvd-ebr"])
    assert pace.due() == 1.0 + QUIET_S
    pace.looks(2.0)
    pace.well(2.0)
    assert pace.due() == 2.0 + PERIOD_S


@given(st.integers(1, 40))
def test_what_cannot_be_done_is_tried_less_and_less(times: int) -> None:
    pace = Pace(0.0)
    now = waited = 0.0
    for _ in range(times):
        pace.looks(now)
        pace.refused(now)
        pace.news(now)
        assert now + waited <= pace.due() <= now + PERIOD_S
        waited = pace.due() - now
        now = pace.due()
    pace.looks(now)
    pace.well(now)
    pace.looks(now)
    pace.refused(now)
    pace.news(now)
    assert pace.due() == now + 1.0
