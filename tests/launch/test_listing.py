"""Which flags a launcher knows, by its own word, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import paths, process
from cfctl.errors import UsageError
from cfctl.launch import listing
from cfctl.launch.generation import Generation
from cfctl.launch.hostpackage import HostPackage
from cfctl.launch.listing import Flag, Listing
from tests import generations, standins

# Constructed in the form that was recorded from Debian's cuttlefish-base 1.57; gflags wraps at 80 columns.
XML = """<?xml version="1.0"?>
<AllFlags>
<program>cvd_internal_start</program>
<usage>none</usage>
<flag><file>a.cc</file><name>cpus</name><meaning>how many &lt;n&gt;</meaning><default>4</default><current>4</current>\
<type>string</type></flag>
<flag><file>a.cc</file><name>resume</name><meaning></meaning><default>true</default><current>true</current>\
<type>bool</type></flag>
</AllFlags>
"""
TEXT = """cvd_internal_start: none

  Flags from a.cc:
    -cpus (how many [one
      each]) type: string default: "4"
    -resume (go on) type: bool default: true
    -late (a long text about it) type: string
      default: ""
"""


def test_both_forms_of_help() -> None:
    both = {"cpus": Flag("string", "4"), "resume": Flag("bool", "true")}
    assert listing.parse(XML) == Listing(both)
    assert listing.parse(TEXT) == Listing({**both, "late": Flag("string", "")})
    assert listing.parse("launch_cvd: no such thing") is None


@given(st.text(max_size=400), st.integers(0, len(XML)), st.integers(0, len(TEXT)))
def test_garbage_is_no_listing(garbage: str, cut: int, cut_text: int) -> None:
    for text in (garbage, XML[:cut] + garbage, TEXT[:cut_text] + garbage, garbage + XML):
        found = listing.parse(text)
        assert found is None or all(name.isidentifier() or name[0].isdigit() for name in found.flags)


def test_what_a_user_may_give() -> None:
    known = listing.parse(XML)
    listing.check(["--cpus=2", "-cpus=2", "--noresume", "--resume=false"], known)
    listing.check(["--anything=1"], None)
    for bad in ("--cpu=2", "--nocpus=2", "--"):
        with pytest.raises(UsageError, match="has no flag"):
            listing.check([bad], known)
    with pytest.raises(UsageError) as refused:
        listing.check(["--cpu=2"], known)
    assert refused.value.details == "It knows 2 flags; like it: --cpus."


def test_what_we_give() -> None:
    known = listing.parse(XML)
    assert listing.fit(["--cpus=2", "--report_anonymous_usage_stats=n", "--num_instances=1"], known) == ["--cpus=2"]
    assert listing.fit(["--cpus=2", "--what=3"], None) == ["--cpus=2", "--what=3"]
    with pytest.raises(UsageError, match="no flag --instance_nums"):
        listing.fit(["--instance_nums=1,5"], known)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(tmp_path / "cache"))
    return paths.current().flag_listings


@pytest.mark.parametrize("generation", list(Generation))
def test_a_launcher_is_asked_once(tmp_path: Path, cache: Path, generation: Generation) -> None:
    package = HostPackage.open(generations.write(tmp_path / "package", generation))
    found = listing.of(package)
    assert found is not None
    assert {"cpus", "gpu_mode"} <= set(found.flags)
    assert ("use_cvdalloc" in found.flags) == (generation is Generation.FORWARDING)
    (kept,) = cache.iterdir()
    kept.write_text('{"flags": {"only": {"type": "string", "default": ""}}}')
    assert listing.of(package) == Listing({"only": Flag("string", "")})
    kept.write_text("{")
    assert listing.of(package) == found
    # Another launcher at the same place is another.
    package.start.write_text(package.start.read_text() + "\n")
    listing.of(package)
    assert len(list(cache.iterdir())) == 2


def test_a_launcher_that_does_not_tell(tmp_path: Path, cache: Path) -> None:
    assert listing.of(HostPackage.open(standins.write(tmp_path / "package", "mute"))) is None
    assert list(cache.iterdir()) == []


def test_a_launcher_that_takes_every_call_for_a_launch(tmp_path: Path, cache: Path) -> None:
    launcher = tmp_path / "package/bin/launch_cvd"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(f"#!/bin/sh\nsetsid sleep 600 >/dev/null 2>&1 &\necho $! >>{tmp_path}/pids\n")
    launcher.chmod(0o755)
    assert listing.of(HostPackage.open(tmp_path / "package")) is None
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert not any(process.alive(int(pid)) for pid in pids)
