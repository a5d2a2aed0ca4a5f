from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import steps
from cfctl.launch import boot, registry
from cfctl.launch.registry import Record, Request


class Listener(steps.Silent):
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []

    def phase(self, name: str, detail: str, seconds: float) -> None:
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
    listener, clock = Listener(), Clock()
    watch = boot.Watch(record(), started=clock.now, clock=clock)
    log(1, "VIRTUAL_DEVICE_BOOT_STARTED\nwaiting for root device\n")
    with steps.reporting(listener):
        watch.poll()
        clock.now += 20
        watch.poll()
        assert listener.notes == []
        clock.now += 9.9
        watch.poll()
    assert listener.notes == [
        "cvd-1: nothing new for 30 s since: first userspace running; "
        'the last line of its log: "waiting for root device"'
    ]


def test_failure_text_and_evidence() -> None:
    watch = boot.Watch(record(), started=0)
    log(1, "VIRTUAL_DEVICE_BOOT_FAILED: no lease\r\n")
    watch.poll()
    assert watch.boots[0].failure == "no lease"
    assert "cvd-1 says: no lease" in watch.evidence()
    assert "Last lines of the guest's console:" in watch.evidence()


@given(st.binary(max_size=400))
def test_any_bytes_are_lines_or_nothing(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "kernel.log"
    path.write_bytes(raw)
    for line in boot.last_lines(path, 5):
        assert line.strip()
        assert all(c.isprintable() or c == "\t" for c in line)
    assert len(boot.Tail(path).lines()) == raw.count(b"\n")
