"""How a plan is shown: what is of one sort, and at one place, as one line."""

from __future__ import annotations

from cfctl.cli import host_plan
from cfctl.hostres.plan import Change


def test_many_of_one_sort_are_one_line() -> None:
    taps = [Change("remove", "tap", f"cvd-etap-0{n}", f"it is of instance {n}") for n in range(1, 6)]
    assert list(host_plan.lines(taps)) == ["remove  5 taps cvd-etap-01 ... cvd-etap-05: no longer needed"]
    assert len(list(host_plan.lines(taps[:4]))) == 4


def test_openings_of_each_chain_are_a_line_of_their_own() -> None:
    chains = ("inet f input", "inet f forward")
    openings = [Change("remove", "opening", f"{chain}: rule {n}", "not needed") for chain in chains for n in range(5)]
    assert list(host_plan.lines(openings)) == [f"remove  5 openings in {chain}: not needed" for chain in chains]
    few = [*openings[:3], *openings[5:8]]
    assert list(host_plan.lines(few)) == [f"remove  opening {change.name}: not needed" for change in few]
