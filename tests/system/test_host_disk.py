"""/run/cfctl full or read-only: said in words, and nothing half done; the watcher waits for it to be mended."""

from __future__ import annotations

import pytest

from tests.system.host_helpers import changes, fails, snapshot
from tests.system.sandbox import Sandbox
from tests.system.watching import watching

_MOUNT = "mkdir -p /run/cfctl && mount -t tmpfs -o size=4k,mode=0755 tmpfs /run/cfctl"
_FULL = f"{_MOUNT} && head -c 4096 /dev/zero >/run/cfctl/filler"
_READ_ONLY = f"{_MOUNT} && mount -o remount,ro /run/cfctl"


@pytest.mark.parametrize(
    ("how", "said", "helps"),
    [
        (_FULL, "No space left on device", "df -h /run/cfctl"),
        (_READ_ONLY, "Read-only file system", "findmnt -T /run/cfctl"),
    ],
    ids=["full", "read-only"],
)
def test_a_set_up_says_so(sandbox: Sandbox, how: str, said: str, helps: str) -> None:
    sandbox.run("sh", "-c", how)
    before = snapshot(sandbox)
    text = fails(sandbox, 1, "host", "setup", "--lazy", "--instances", "1")
    assert said in text
    assert helps in text
    assert "This is a bug" not in text
    found = snapshot(sandbox)
    assert found == before


@pytest.mark.parametrize(
    ("how", "mends"),
    [(_FULL, "rm /run/cfctl/filler"), (_READ_ONLY, "mount -o remount,rw /run/cfctl")],
    ids=["full", "read-only"],
)
def test_the_watcher_waits(sandbox: Sandbox, how: str, mends: str) -> None:
    sandbox.run("sh", "-c", how)
    with watching(sandbox, "--lazy", "--instances", "1") as watch:
        (waiting,) = watch.of("waiting")
        assert "cannot be written" in waiting["text"]
        sandbox.run("sh", "-c", f"mount -o remount,size=1m /run/cfctl; {mends}")
        watch.signal("HUP")
        watch.until(lambda: watch.of("ready"), "it goes on")
    assert changes(sandbox, "host", "setup") == []
