"""Lazy mode: taps from launch to stop, made by root's service for whoever holds the number, and for nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.host_helpers import changes, python, snapshot, taps_in_use
from tests.system.sandbox import Sandbox
from tests.system.watching import Watch, watching

USER = "tester"


def taps(box: Sandbox) -> set[str]:
    names = {link["ifname"] for link in json.loads(box.run("ip", "-j", "link").stdout)}
    return {name for name in names if "tap" in name or "wifiap" in name}


def taps_of(number: int) -> set[str]:
    return {f"cvd-{kind}-{number:02d}" for kind in ("etap", "wtap", "mtap", "wifiap")}


@pytest.fixture
def watch(sandbox: Sandbox) -> Iterator[Watch]:
    """Give a watched host with taps on request for 3 instances."""
    with watching(sandbox, "--lazy", "--instances", "3") as found:
        yield found


def ask(box: Sandbox, *args: str, user: str = USER) -> list[str]:
    """Ask the service in some way (tap_asker.py); return what it answered: ``done``, or the error's code and text."""
    return python(box, "tests.system.tap_asker", *args, user=user).stdout.splitlines()


def test_set_up_and_taken_down(sandbox: Sandbox) -> None:
    before = snapshot(sandbox)
    made = changes(sandbox, "host", "setup", "--lazy", "--instances", "3")
    assert ("create", "mode lazy") in made
    assert not [name for _, name in made if name.startswith("tap")]
    assert taps(sandbox) == set()
    status = sandbox.json("host", "status", user=USER)
    assert (status["state"], status["instances"], status["lazy"], status["active"]) == ("ready", 3, True, [])
    # Again, without a word about it: it stays as it is.
    assert changes(sandbox, "host", "setup") == []
    # To all taps at once, and back: what nobody uses goes.
    sandbox.cfctl("host", "setup", "--no-lazy")
    assert taps(sandbox) == taps_of(1) | taps_of(2) | taps_of(3)
    assert sandbox.json("host", "status")["lazy"] is False
    with taps_in_use(sandbox, "cvd-etap-02"):
        sandbox.cfctl("host", "setup", "--lazy")
        assert taps(sandbox) == taps_of(2)
        assert sandbox.json("host", "status")["state"] == "ready"
    assert ("remove", "tap cvd-etap-02") in changes(sandbox, "host", "setup")
    assert taps(sandbox) == set()
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_none_from_the_start_is_any_on_request(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--lazy", "--instances", "0")
    status = sandbox.json("host", "status")
    assert (status["state"], status["instances"], status["served"]) == ("ready", 128, 128)
    sandbox.cfctl("host", "setup", "--instances", "0", "--no-lazy")
    assert sandbox.json("host", "status", "--instances", "0", "--no-lazy")["state"] == "absent"


def test_a_device_of_an_ordinary_user(watch: Watch, host_package: Path) -> None:
    box = watch.box
    before = box.snapshot()
    device = box.json("launch", "mine", user=USER)
    assert device["instances"][0]["number"] == 1
    assert taps(box) == taps_of(1)
    assert box.cfctl("adb", "mine", "shell", "uname", "-s", user=USER).stdout.strip() == "Linux"
    assert sum("masquerade" in line for line in box.run("nft", "list", "ruleset").stdout.splitlines()) == 4
    box.cfctl("restart", "mine", user=USER)
    assert taps(box) == taps_of(1)
    # A set-up meanwhile takes nothing away.
    assert changes(box, "host", "setup") == []
    box.cfctl("stop", "mine", user=USER)
    assert taps(box) == set()
    box.run("adb", "kill-server", user=USER)
    after = box.snapshot()
    for part in ("links", "addresses", "rules", "processes"):
        assert after[part] == before[part]
    asked = [event["text"].partition(" asked to ")[2] for event in watch.of("taps")]
    assert asked == [f"{what} the taps of instance 1" for what in ("make", "remove", "make", "remove")]
    assert watch.of("mended")[1:] == []
