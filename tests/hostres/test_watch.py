"""What the watcher makes of settings and of what was; the rest is in tests/system/test_host_watch.py."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cfctl import config
from cfctl.config import Settings, Value
from cfctl.hostres.watch import Watcher


def load(**flags: object) -> Settings:
    chosen = {f"host.{name}": value for name, value in flags.items()}
    return config.load(flags=chosen, environ={}, upstream_file=Path("/nonexistent"))


WATCHER = Watcher(load, lambda report: None)


def as_it_was(watcher: Watcher, settings: Settings, kept: dict[str, object], now: int) -> Settings:
    watcher._kept = {f"host.{name}": Value(value, "observed on the host") for name, value in kept.items()}
    return watcher._as_it_was(settings, load(instances=now))


@given(st.integers(1, 128), st.integers(1, 128))
def test_damage_makes_no_fewer_instances(before: int, now: int) -> None:
    followed = as_it_was(WATCHER, load(), {"instances": before}, now)
    # More are somebody's half-done set-up: the number is then told by the host.
    assert followed["host.instances"] == before if before >= now else followed.origin("host.instances") == "built-in"


def test_settings_are_stronger_than_what_was() -> None:
    followed = as_it_was(WATCHER, load(instances=2), {"instances": 9, "lazy": True, "bridge": "br0"}, 1)
    assert (followed["host.instances"], followed["host.lazy"], followed["host.bridge"]) == (2, True, "br0")
