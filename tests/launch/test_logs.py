"""Logs that are kept, cut and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from cfctl.launch import boot, logs
from cfctl.launch.registry import Record
from tests.launch.devices import record


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Give a device with a log."""
    monkeypatch.setenv("CFCTL_PATHS_STATE", str(tmp_path))
    made = record(booted_at="2026-01-01T00:00:00.000Z")
    log(made).parent.mkdir(parents=True)
    log(made).write_text("first boot\n")
    return made


def log(device: Record) -> Path:
    return boot.kernel_log(device, device.instances[0])


def kept(device: Record) -> dict[str, str]:
    directory = logs.old(device, device.instances[0])
    return {path.name: path.read_text() for path in sorted(directory.glob("*"))}


def test_a_new_boot_begins_with_none_and_the_last_ones_are_kept(device: Record) -> None:
    for word in ("second", "third", "fourth", "fifth"):
        logs.set_aside(device)
        assert not log(device).exists()
        log(device).write_text(f"{word} boot\n")
    assert kept(device) == {
        "kernel.log.1": "fourth boot\n",
        "kernel.log.2": "third boot\n",
        "kernel.log.3": "second boot\n",
    }


def test_an_empty_log_takes_nobodys_place(device: Record) -> None:
    logs.set_aside(device)
    log(device).touch()
    logs.set_aside(device)
    assert kept(device) == {"kernel.log.1": "first boot\n"}
    assert not log(device).exists()


def test_a_large_log_is_emptied_under_its_writer(device: Record) -> None:
    with log(device).open("ab", buffering=0) as writer:
        assert logs.keep_small(device, largest=5) == [log(device)]
        writer.write(b"goes on\n")
    assert log(device).read_text() == "goes on\n"
    assert kept(device) == {"kernel.log.1": "first boot\n"}
    assert logs.keep_small(device, largest=100) == []


def test_one_that_does_not_append_keeps_its_log(device: Record) -> None:
    with log(device).open("r+b", buffering=0):
        assert not logs.appended(log(device))
        assert logs.keep_small(device, largest=5) == []
    with log(device).open("rb"):
        assert logs.appended(log(device)), "readers do not matter"
    assert log(device).read_text() == "first boot\n"


def test_nothing_is_cut_before_the_boot_is_known(device: Record) -> None:
    device.booted_at = None
    assert logs.keep_small(device, largest=5) == []


def test_links_are_not_followed(device: Record, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    log(device).unlink()
    log(device).symlink_to(outside)
    logs.set_aside(device)
    assert logs.keep_small(device, largest=1) == []
    assert outside.read_text() == "precious"
    assert log(device).readlink() == outside
