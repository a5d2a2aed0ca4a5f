"""Slices of the WebRTC ports, and which flags a launcher knows."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import config
from cfctl.errors import UsageError
from cfctl.instance import MAX_INSTANCES, Instance
from cfctl.launch import ports
from cfctl.launch.ports import Range

DEFAULT = ports.parse(config.KEYS["launch.webrtc_ports"].default)


def test_the_first_begins_where_upstreams_begin() -> None:
    assert ports.portion(Instance(1), DEFAULT) == Range(15550, 15589)
    assert ports.portion(Instance(2), DEFAULT) == Range(15590, 15629)
    assert ports.portion(Instance(128), DEFAULT) == Range(20630, 20669)


@given(st.integers(1024, 65535 - MAX_INSTANCES), st.data())
def test_no_two_share_a_port(first: int, data: st.DataObject) -> None:
    whole = Range(first, data.draw(st.integers(first + MAX_INSTANCES - 1, 65535)))
    slices = [ports.portion(Instance(number), whole) for number in range(1, MAX_INSTANCES + 1)]
    assert slices[0].first == whole.first
    assert slices[-1].last <= whole.last
    for mine, following in itertools.pairwise(slices):
        assert mine.first <= mine.last < following.first


def test_flags_are_lists_of_slices() -> None:
    both = frozenset({"tcp_port_range", "udp_port_range", "cpus"})
    assert ports.flags([Instance(1), Instance(3)], DEFAULT, known=both) == [
        "--tcp_port_range=15550:15589,15630:15669",
        "--udp_port_range=15550:15589,15630:15669",
    ]
    assert ports.flags([Instance(1)], DEFAULT, known=frozenset({"udp_port_range"})) == [
        "--udp_port_range=15550:15589"
    ]
    assert ports.flags([Instance(1)], DEFAULT, known=frozenset()) == []


@pytest.mark.parametrize(
    "wrong", ["15550", "15550-20669", "a:b", "20669:15550", "80:20669", "15550:70000", "5000:5100"]
)
def test_ranges_that_make_no_sense(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a value for launch"):
        config.load(environ={"CFCTL_LAUNCH_WEBRTC_PORTS": wrong}, upstream_file=tmp_path / "none")
