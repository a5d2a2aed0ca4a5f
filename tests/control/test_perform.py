"""Operations on a VM of crosvm's: by its own program, by its protocol, in three ages, and with its bad manners."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cfctl import process
from cfctl.control import crosvm, operations, perform
from cfctl.control.faults import VmBusy, VmCannot, VmRefused, VmSilent, VmUnreachable
from cfctl.control.operations import Manager
from cfctl.control.target import VmTarget
from cfctl.errors import UsageError
from tests import crosvm as standin
from tests.crosvm.program import AGES

#: Far more than anything here takes.
PATIENCE_S = 30.0

#: Long enough for an answer, short enough to wait for none.
BRIEF_S = 1.0


def do(target: VmTarget, words: str, *, seconds: float = PATIENCE_S) -> dict[str, Any]:
    return asyncio.run(perform.perform(target, operations.from_words(words.split()), seconds=seconds))


def through_everything(vm: standin.Running, age: str) -> None:
    """Ask for everything that this age can, and see that the VM is as was asked."""
    target = vm.target
    for words in ("suspend", "resume"):
        do(target, words)
        assert vm.state["suspended"] is (words == "suspend")
    do(target, "powerbtn")
    do(target, "sleepbtn")
    assert vm.state["buttons"] == ["Powerbtn", "Sleepbtn"]
    do(target, "balloon set 2M")
    do(target, "balloon set 3M wait")
    assert do(target, "balloon stats") == {
        "balloon_bytes": 3 << 20,
        "stats": {"free_memory": 11, "total_memory": 22},
    }
    for what, expected in (
        ("status notcharging", {"SetStatus": "NotCharging"}),
        ("health overheat", {"SetHealth": "Overheat"}),
        ("present no", {"SetPresent": 0}),
        ("capacity 15", {"SetCapacity": 15}),
        ("ac on", {"SetACOnline": 1}),
    ):
        do(target, f"battery {what}")
        assert expected.items() <= vm.state["battery"].items()
    assert do(target, "usb list") == {"devices": [{"port": 3, "vendor_id": 0x18D1, "product_id": 0x4EE7}]}
    assert do(target, "usb detach 3") == {"port": 3}
    assert do(target, "usb list") == {"devices": []}
    with pytest.raises(VmRefused):
        do(target, "usb detach 3")
    do(target, "disk resize 0 5G")
    assert vm.state["disk"] == 5 << 30
    with pytest.raises(VmRefused):
        do(target, "disk resize 7 5G")
    do(target, "swap enable")
    do(target, "swap trim")
    do(target, "swap out")
    assert do(target, "swap status")["state"] == "Active"
    do(target, "swap disable")
    assert vm.state["swap"] == "Ready"
    do(target, "display add 640 480 160 30")
    assert do(target, "display list")["displays"] == [
        {"id": 0, "width": 720, "height": 1280, "dpi": 320, "refresh_rate_hz": 60},
        {"id": 1, "width": 640, "height": 480, "dpi": 160, "refresh_rate_hz": 30},
    ]
    do(target, "display remove 1")
    with pytest.raises(VmRefused):
        do(target, "display remove 1")
    assert len(do(target, "display list")["displays"]) == 1
    if age != "2022":
        assert [bin_["age"] for bin_ in do(target, "balloon working-set")["working_set"]] == [5, 9]
    if age == "2026":
        (first, second) = do(target, "vcpus")["vcpus"]
        assert (first, second["index"]) == ({"index": 0, "pid": vm.child.pid, "tid": 101}, 1)
        do(target, "battery fake 80")
        do(target, "battery cancel-fake")
    assert do(target, 'raw "Powerbtn"') == {"reply": "Ok"}


@pytest.mark.parametrize("age", AGES)
def test_by_its_own_program(tmp_path: Path, age: str) -> None:
    with standin.running(tmp_path, age) as vm:
        through_everything(vm, age)
        # What the command line has was asked of it; what it lacks, of the socket.
        full = ["--full"] if age != "2022" else []
        assert vm.commands[0] == ["suspend", str(vm.target.socket), *full]
        assert not any(command[0] in ("vcpus", "raw") for command in vm.commands)


@pytest.mark.parametrize("age", AGES)
def test_by_its_protocol_where_the_program_is_not_known(tmp_path: Path, age: str) -> None:
    # Here nobody can tell the age: what is not answered is said in the older way.
    with standin.running(tmp_path, age, name="vmm", words=False) as vm:
        for words in ("suspend", "resume"):
            do(vm.target, words, seconds=2 * BRIEF_S)
            assert vm.state["suspended"] is (words == "suspend")
        do(vm.target, "swap disable", seconds=2 * BRIEF_S)
        do(vm.target, "balloon set 2M")
        assert vm.state["balloon"] == 2 << 20
        do(vm.target, "display add 640 480")
        assert vm.commands == []
        said = [request for request in vm.requests if request != "end" and "uspend" in request]
        assert said == (['"SuspendVm"', '"Suspend"'] if age == "2022" else ['"SuspendVm"'])


@pytest.mark.parametrize("age", AGES)
def test_a_program_that_the_config_names(tmp_path: Path, age: str) -> None:
    program = standin.write(tmp_path / "other", age)
    with standin.running(tmp_path, age, name="vmm") as vm:
        target = VmTarget("phone", Manager.CROSVM, vm.target.sockets, program)
        do(target, "suspend")
        assert (tmp_path / "other" / "commands").read_text().startswith('["suspend"')


def test_a_program_that_was_replaced_while_it_runs(tmp_path: Path) -> None:
    with standin.running(tmp_path, "2026") as vm:
        vm.program.unlink()
        vm.program.write_text("#!/bin/sh\necho this is another one\nexit 1\n")
        vm.program.chmod(0o755)
        found = asyncio.run(crosvm.find(vm.target, seconds=PATIENCE_S))
        assert found.path == f"/proc/{vm.child.pid}/exe"
        assert found.age.knows("VcpuPidTid")


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    broken = tmp_path / "crosvm-broken"
    broken.write_text("#!/nowhere\n")
    broken.chmod(0o755)
    with standin.running(tmp_path, "2026", name="vmm") as vm:
        target = VmTarget("phone", Manager.CROSVM, vm.target.sockets, broken)
        do(target, "balloon set 2M")
        assert vm.state["balloon"] == 2 << 20


def test_too_old_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with standin.running(tmp_path, "2022") as vm:
        for words in ("vcpus", "balloon working-set", "battery fake 3"):
            with pytest.raises(VmCannot, match="too old"):
                do(vm.target, words)
        assert vm.commands == []
        assert set(vm.requests) <= {"end"}, "no more than a look at who listens"


@pytest.mark.parametrize(
    ("lacks", "words", "why"),
    [
        ("balloon", "balloon stats", "This VM has no balloon"),
        ("balloon", "balloon set 1M", "This VM has no balloon"),
        ("battery", "battery capacity 15", "This VM has no battery"),
        ("usb", "usb list", "This VM has no USB"),
        ("gpu", "display list", "This VM's GPU is not in crosvm's own process"),
        ("gpu", "display add 640 480", "This VM's GPU is not in crosvm's own process"),
        ("acpi", "sleepbtn", "This VM has no ACPI power management"),
        ("swap", "swap out", "This VM cannot be swapped out"),
    ],
)
@pytest.mark.parametrize("name", ["crosvm", "vmm"])
def test_what_a_vm_lacks(tmp_path: Path, name: str, lacks: str, words: str, why: str) -> None:
    with standin.running(tmp_path, name=name, lacks=(lacks,)) as vm, pytest.raises(VmRefused) as caught:
        do(vm.target, words)
    assert str(caught.value.details).startswith(why)
    assert caught.value.exit_code == 1


def test_seventeen_displays(tmp_path: Path) -> None:
    with standin.running(tmp_path, name="vmm") as vm:
        for _ in range(15):
            do(vm.target, "display add 64 48")
        with pytest.raises(VmRefused, match="no more displays"):
            do(vm.target, "display add 64 48")


@pytest.mark.parametrize("name", ["crosvm", "vmm"])
def test_silence(tmp_path: Path, name: str) -> None:
    with standin.running(tmp_path, name=name) as vm:
        vm.fault("silent")
        with pytest.raises(VmSilent):
            do(vm.target, "balloon set 2M", seconds=BRIEF_S)
        # Whoever asked, asks no more: the connection is closed, and no program is left waiting.
        deadline = time.monotonic() + PATIENCE_S
        while vm.requests[-1] != "end":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        vm.fault("")
        assert do(vm.target, "balloon stats")["balloon_bytes"] == 2 << 20, "it was done all the same"


@pytest.mark.parametrize("fault", ["garbage", "unknown", "end"])
def test_answers_that_are_none(tmp_path: Path, fault: str) -> None:
    with standin.running(tmp_path, name="vmm") as vm:
        vm.fault(fault)
        with pytest.raises(VmRefused) as caught:
            do(vm.target, "balloon set 2M")
        if fault == "unknown":
            assert caught.value.reply == {"FromTheFuture": {"answer": 42}}


def test_a_long_answer_is_whole(tmp_path: Path) -> None:
    with standin.running(tmp_path, name="vmm") as vm:
        vm.fault("long 150000")
        assert do(vm.target, 'raw "Powerbtn"') == {"reply": {"ErrString": "x" * 150_000}}


def test_raw_is_json(tmp_path: Path) -> None:
    with standin.running(tmp_path, name="vmm") as vm:
        for request in ("{", "", '"Powerbtn" "Powerbtn"'):
            with pytest.raises(UsageError, match="not JSON"):
                asyncio.run(perform.perform(vm.target, operations.operation("raw", {"request": request})))
        assert vm.requests == []


def test_a_vm_that_starts_anew(tmp_path: Path) -> None:
    with standin.running(tmp_path) as vm:
        vm.child.kill()
        vm.child.wait()
        # What a crash leaves: a socket on which nobody listens.
        assert vm.target.socket.exists()

        async def asked() -> dict[str, Any]:
            asking = asyncio.create_task(
                perform.perform(vm.target, operations.from_words(["balloon", "stats"]), seconds=PATIENCE_S)
            )
            await asyncio.sleep(0.2)
            vm.target.socket.unlink()
            with standin.serving(vm.target, vm.program):
                return await asking

        assert asyncio.run(asked())["balloon_bytes"] == 0


def test_no_vm(tmp_path: Path) -> None:
    target = VmTarget("phone", Manager.CROSVM, tmp_path)
    with pytest.raises(VmUnreachable):
        do(target, "balloon stats")
    with pytest.raises(VmUnreachable, match="no VM that could be asked"):
        VmTarget.at(tmp_path, "phone")


# -- one at a time ------------------------------------------------------------------------------------------


def test_one_request_at_a_time_from_whatever_process(tmp_path: Path) -> None:
    with standin.running(tmp_path, name="vmm") as vm:
        vm.fault("late 0.1")

        async def asked() -> list[dict[str, Any]]:
            balloon = operations.from_words(["balloon", "stats"])
            return list(
                await asyncio.gather(*(perform.perform(vm.target, balloon, seconds=PATIENCE_S) for _ in range(4)))
            )

        assert len(asyncio.run(asked())) == 4
        stats = [request for request in vm.requests if request != "end"]
        # Between two requests the connection of the first has ended.
        assert vm.requests.count("end") >= len(stats) == 4
        order = [request == "end" for request in vm.requests]
        assert not any(not a and not b for a, b in itertools.pairwise(order)), vm.requests


def test_busy_is_said_with_who_it_is(tmp_path: Path) -> None:
    with standin.running(tmp_path, name="vmm") as vm:
        code = (
            "import fcntl, os, sys, time\nfd = os.open(sys.argv[1], os.O_RDONLY)\nfcntl.flock(fd, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\ntime.sleep(600)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, vm.target.internal], stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(VmBusy) as caught:
                do(vm.target, "balloon stats", seconds=0.2)
            holder.kill()
        assert caught.value.code == "vm-busy"
        assert f"process {holder.pid}" in str(caught.value.details)
        assert vm.requests == []
        # Its holder was killed, and the lock is free.
        assert do(vm.target, "balloon stats")


@pytest.mark.parametrize("name", ["crosvm", "vmm"])
def test_a_cancelled_request_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    with standin.running(tmp_path, name=name) as vm:
        vm.fault("late 1")

        async def cancelled() -> None:
            asking = asyncio.create_task(
                perform.perform(vm.target, operations.from_words(["balloon", "set", "1M"]), seconds=PATIENCE_S)
            )
            while not any("Adjust" in request for request in vm.requests):
                await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            # Not only when the loop ends, which waits for its threads.
            running = [process.command_line(pid) for pid in process.pids()]
            assert not any(str(vm.target.socket) in command and "balloon" in command for command in running)

        asyncio.run(cancelled())
        vm.fault("")
        assert do(vm.target, "balloon stats")["balloon_bytes"] == 1 << 20


def test_the_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    with standin.running(tmp_path, name="vmm") as vm:
        with pytest.raises(VmRefused):
            do(vm.target, "disk resize 7 1")
        fd = os.open(vm.target.internal, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has its socket listen as somebody else")
@pytest.mark.parametrize("named", [True, False], ids=["in the config", "of the process"])
def test_another_users_program_is_read_and_never_run(tmp_path: Path, *, named: bool) -> None:
    """It would run with our rights: a user could have root run anything by having root ask after his device."""
    program = standin.write(tmp_path / "other", "2022")
    (tmp_path / "s/internal").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        target = VmTarget("phone", Manager.CROSVM, tmp_path / "s", program if named else None)
        listener.bind(os.fspath(target.socket))
        # The kernel remembers who called listen(2).
        os.seteuid(65534)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        found = asyncio.run(crosvm.find(target, seconds=PATIENCE_S))
    assert found.path is None
    assert found.age.knows("SuspendVm") is (False if named else None)
