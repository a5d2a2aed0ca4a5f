"""What the guest says about its boot."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cfctl.guest.bootlog import Event, LauncherLog, Lines, match

LOG = (
    b"[    0.000000] Linux version 6.1.0\r\n"
    b"[    1.5] VIRTUAL_DEVICE_BOOT_STARTED\n"
    b"[    1.6] init: starting service 'adbd'...\n"
    b"nothing\n"
    b"[    2.0] VIRTUAL_DEVICE_NETWORK_MOBILE_CONNECTED\n"
    b"[    2.1] VIRTUAL_DEVICE_NETWORK_ETHERNET_CONNECTED\n"
    b"[    2.2] VIRTUAL_DEVICE_BOOT_COMPLETED\n"
)
EVENTS = [
    Event.KERNEL_LOADED,
    Event.BOOT_STARTED,
    Event.ADBD_STARTED,
    Event.MOBILE_CONNECTED,
    Event.ETHERNET_CONNECTED,
    Event.BOOT_COMPLETED,
]


@given(st.lists(st.integers(0, len(LOG))))
def test_the_same_however_it_is_cut(cuts: list[int]) -> None:
    lines = Lines()
    edges = [0, *sorted(cuts), len(LOG)]
    hits = [hit for start, end in itertools.pairwise(edges) for hit in lines.feed(LOG[start:end])]
    assert [hit.event for hit in hits] == EVENTS


def test_a_failure_tells_why() -> None:
    hit = match("[    9.0] VIRTUAL_DEVICE_BOOT_FAILED: no DHCP lease\r")
    assert hit is not None
    assert hit.event is Event.BOOT_FAILED
    assert hit.text == "VIRTUAL_DEVICE_BOOT_FAILED: no DHCP lease"


def test_a_line_without_end_does_not_grow() -> None:
    lines = Lines()
    for _ in range(100):
        assert lines.feed(b"x" * 10000) == []
    assert len(lines._rest) <= 4096


def test_launcher_log_has_upstreams_form(tmp_path: Path) -> None:
    log = LauncherLog(tmp_path / "launcher.log", "run_cvd")
    log.write("I", "VIRTUAL_DEVICE_BOOT_COMPLETED")
    assert re.fullmatch(
        r"run_cvd\((\d+)\)  I \d\d-\d\d \d\d:\d\d:\d\d \1 \1 test_bootlog.py:\d+\] VIRTUAL_DEVICE_BOOT_COMPLETED\n",
        (tmp_path / "launcher.log").read_text(),
    )
