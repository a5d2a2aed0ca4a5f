from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import steps
from cfctl.launch import boot, diagnosis, registry
from cfctl.launch.registry import Record, Request


class Listener(steps.Silent):
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []

    def phase(
        self, name: str, detail: str, seconds: float, *, took: float | None = None, typical: float | None = None
    ) -> None:
        self.phases.append(name if "cvd" not in detail else f"{name} {detail.split()[-1]}")

    def note(self, text: str) -> None:
        self.notes.append(text)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def record(numbers: tuple[int, ...] = (1,)) -> Record:
    return Record(
        name="phone",
        owner="me",
        created_at=registry.now(),
        request=Request(host_package="/opt/cf"),
        numbers=numbers,
        gpu_mode="none",
        gpu_reason="",
    )


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_PATHS_STATE", str(tmp_path))
    return tmp_path


def log(number: int, text: str, name: str = "kernel.log") -> Path:
    path = Path(record((number,)).instances[0].directory(record().home)) / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)
    return path


def test_what_the_launcher_wants_people_to_know_is_said(state: Path) -> None:
    listener = Listener()
    record().home.mkdir(parents=True, exist_ok=True)
    launch_log = record().home / boot.LAUNCH_LOG
    launch_log.write_text("assembling\nnote: emulated, \x1b[31mslow\nnote: half a li")
    with steps.reporting(listener):
        watch = boot.Watch(record(), started=0.0, clock=Clock())
        watch.poll()
        watch.poll()
        assert listener.notes[:1] == ["emulated, [31mslow"]
        with launch_log.open("a") as file:
            file.write("ne\n")
        watch.poll()
    assert [note for note in listener.notes if "nothing new" not in note] == ["emulated, [31mslow", "half a line"]


def test_phases_in_the_order_of_a_boot() -> None:
    listener = Listener()
    watch = boot.Watch(record(), started=0)
    with steps.reporting(listener):
        watch.poll()
        log(1, "[    0.0] Linux version 6.1\nVIRTUAL_DEVICE_BOOT_STARTED\n")
        watch.poll()
        log(1, "VIRTUAL_DEVICE_NETWORK_ETHERNET_CONNECTED\nVIRTUAL_DEVICE_BOOT_COMP")
        watch.poll()
        assert not watch.booted
        log(1, "LETED\n")
        watch.poll()
    assert listener.phases == ["vm", "kernel", "userspace", "network", "booted"]
    assert watch.booted


def test_two_instances_boot_only_together() -> None:
    watch = boot.Watch(record((1, 2)), started=0)
    log(1, "VIRTUAL_DEVICE_BOOT_COMPLETED\n")
    log(2, "VIRTUAL_DEVICE_BOOT_STARTED\n")
    watch.poll()
    assert [b.booted for b in watch.boots] == [True, False]
    assert watch.slowest.instance.number == 2
    log(2, "VIRTUAL_DEVICE_BOOT_COMPLETED\n", "launcher.log")
    watch.poll()
    assert watch.booted
    assert boot.all_booted(record((1, 2)))


def test_a_boot_without_progress_is_named_in_under_30_s() -> None:
    clock = Clock()
    watch = boot.Watch(record(), started=clock.now, clock=clock, typical={"network": 1.0})
    log(1, "VIRTUAL_DEVICE_BOOT_STARTED\nwaiting for root device\n")
    watch.poll()
    clock.now += 20
    assert watch.poll() is None
    clock.now += 9.9
    quiet = watch.poll()
    assert quiet is not None
    assert quiet == pytest.approx(29.9)
    assert diagnosis.silent(watch, quiet).splitlines() == [
        "cvd-1: nothing new for 30 s since: first userspace running (what comes next typically takes 1.0 s)",
        "  no process of it is alive",
        "  last lines of the guest's console:",
        "    VIRTUAL_DEVICE_BOOT_STARTED",
        "    waiting for root device",
    ]
    clock.now += 20
    assert watch.poll() is None, "said once, then again only after as long"


@pytest.mark.parametrize(
    ("phase", "said"),
    [("", "launch.log speaks"), ("kernel console\n", "run_cvd speaks"), ("] Linux version 6\n", "] Linux version 6")],
)
def test_the_log_that_is_shown_is_the_one_of_the_phase(phase: str, said: str) -> None:
    watch = boot.Watch(record(), started=0)
    log(1, "run_cvd speaks\n", "launcher.log")
    (record().home / boot.LAUNCH_LOG).write_text("launch.log speaks\n")
    if phase:
        log(1, phase)
    watch.poll()
    assert said in diagnosis.silent(watch, 30)


def test_phases_tell_what_they_took() -> None:
    clock, listener = Clock(), Listener()
    watch = boot.Watch(record(), started=clock.now, clock=clock)
    with steps.reporting(listener):
        clock.now += 1
        watch.begin()
        clock.now += 2
        log(1, "[    0.0] Linux version 6.1\n")
        watch.poll()
    assert listener.phases == ["assemble", "vm", "kernel"]
    assert watch.took == {"assemble": 1.0, "vm": 2.0, "kernel": 0.0}


def test_a_boot_loop_is_told_while_it_goes_on() -> None:
    listener = Listener()
    watch = boot.Watch(record(), started=0)
    with steps.reporting(listener):
        for count in range(1, 5):
            log(1, "U-Boot 2026.01\n[    0.0] Linux version 6.1\nVIRTUAL_DEVICE_BOOT_STARTED\n")
            watch.poll()
            assert len(listener.notes) == max(0, count - 2)
    assert listener.notes[0] == "cvd-1: the guest has started 3 times and not booted: a boot loop"
    assert "Likely cause: the guest starts again and again: a boot loop." in diagnosis.evidence(watch)


def test_a_panic_is_told_at_once() -> None:
    listener = Listener()
    watch = boot.Watch(record(), started=0)
    with steps.reporting(listener):
        log(1, "[  1.0] Kernel panic - not syncing: no init found\x1b[31m\n")
        watch.poll()
        watch.poll()
    assert listener.notes == ["cvd-1: Kernel panic - not syncing: no init found[31m"]


def test_failure_text_and_evidence() -> None:
    watch = boot.Watch(record(), started=0)
    log(1, "VIRTUAL_DEVICE_BOOT_FAILED: no lease\r\n")
    watch.poll()
    assert watch.boots[0].failure == "no lease"
    said = diagnosis.evidence(watch)
    assert "cvd-1 says: no lease" in said
    assert "Last lines of the guest's console:" in said


def test_when_a_boot_ended_that_nobody_followed() -> None:
    device = record()
    assert boot.completed_at(device) is None
    now = datetime.now().astimezone()
    device.started_at = (now - timedelta(seconds=60)).astimezone(UTC).isoformat()
    stamp = (now - timedelta(seconds=10)).strftime("%m-%d %H:%M:%S")
    log(1, f"kernel_log_monitor(7)  I {stamp} 7 7 x.cc:1] VIRTUAL_DEVICE_BOOT_COMPLETED\n", "launcher.log")
    found = boot.completed_at(device)
    assert found is not None
    assert abs((datetime.fromisoformat(found) - now).total_seconds() + 10) < 1.1
    device.started_at = now.astimezone(UTC).isoformat()
    assert boot.completed_at(device) is None, "it is an earlier boot's"


def test_a_token_is_found_across_the_pieces_that_a_log_is_read_in(tmp_path: Path) -> None:
    path = tmp_path / "kernel.log"
    path.write_bytes(b"x" * ((1 << 20) - 5) + b"\nhere TOKEN is\n" + b"y" * 100)
    assert boot.find(path, "TOKEN") == "here TOKEN is"
    assert boot.find(path, "OTHER") is None


@given(st.binary(max_size=400))
def test_any_bytes_are_lines_or_nothing(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "kernel.log"
    path.write_bytes(raw)
    for line in boot.last_lines(path, 5):
        assert line.strip()
        assert all(c.isprintable() or c == "\t" for c in line)
    assert len(boot.Tail(path).lines()) == raw.count(b"\n")


@given(st.binary(max_size=300))
def test_any_logs_are_a_boot_or_none(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CFCTL_PATHS_STATE", str(tmp_path_factory.mktemp("state")))
        for name in ("kernel.log", "launcher.log"):
            log(1, "", name).write_bytes(raw)
        watch = boot.Watch(record(), started=0)
        watch.poll()
        diagnosis.evidence(watch)
        diagnosis.silent(watch, 30)
        diagnosis.failed(record(), watch, 1)
        diagnosis.timed_out(record(), watch, 5)
        boot.completed_at(record())


@given(
    started=st.text(max_size=12) | st.datetimes().map(str),
    stamp=st.from_regex(r"\d\d-\d\d \d\d:\d\d:\d\d", fullmatch=True),
)
def test_any_moment_is_a_moment_or_none(tmp_path_factory: pytest.TempPathFactory, started: str, stamp: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CFCTL_PATHS_STATE", str(tmp_path_factory.mktemp("state")))
        device = record()
        device.started_at = started
        log(1, f"run_cvd(7)  I {stamp} 7 7 x.cc:1] VIRTUAL_DEVICE_BOOT_COMPLETED\n", "launcher.log")
        found = boot.completed_at(device)
        assert found is None or datetime.fromisoformat(found)
