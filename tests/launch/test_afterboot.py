"""What is to be done after a boot: read strictly, run on every instance, and a failure that is named."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import steps
from cfctl.errors import DeadlinePassed, LaunchFailed, UsageError
from cfctl.launch import afterboot, wanted
from cfctl.launch.afterboot import Command
from cfctl.launch.registry import Request
from tests.launch.devices import record


def test_a_list_of_commands(tmp_path: Path) -> None:
    (tmp_path / "app.apk").touch()
    (tmp_path / "data file").touch()
    (tmp_path / "ready").write_text(
        "# first\n\nadb root\ninstall -r app.apk   # why not\nshell 'echo  \"two  blanks\"'\n"
        "push 'data file' /data/local/tmp/\nwait-for-device\n"
    )
    assert afterboot.read(tmp_path / "ready") == [
        Command(3, ("root",)),
        Command(4, ("install", "-r", f"{tmp_path}/app.apk")),
        Command(5, ("shell", 'echo  "two  blanks"')),
        Command(6, ("push", f"{tmp_path}/data file", "/data/local/tmp/")),
        Command(7, ("wait-for-device",)),
    ]


def test_an_apk_is_installed(tmp_path: Path) -> None:
    (tmp_path / "app.APK").touch()
    assert afterboot.read(tmp_path / "app.APK") == [Command(0, ("install", "-r", f"{tmp_path}/app.APK"))]
    with pytest.raises(UsageError, match="does not exist"):
        afterboot.read(tmp_path / "gone.apk")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("shell 'no end", "No closing quotation"),
        ("shell", "it needs an argument"),
        ("adb", "adb adb is not a command that can be used here"),
        ("reboot", "adb reboot is not a command"),
        ("kill-server", "adb kill-server is not a command"),
        ("root now", "it takes no argument"),
        ("install -r", "it names no .apk"),
        ("install gone.apk", "gone.apk does not exist"),
        ("push gone /data/x", "gone does not exist"),
        ("push . relative", "push needs a local file and a path in the guest"),
    ],
)
def test_a_slip_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        afterboot.parse(f"# a comment\n\n{line}\n", "ready", tmp_path)
    assert caught.value.brief.startswith("ready, line 3: ")
    assert said in caught.value.brief
    assert line in str(caught.value.details)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"x" * ((1 << 20) + 1)])
def test_files_that_are_no_list(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "ready").write_bytes(raw)
    with pytest.raises(UsageError):
        afterboot.read(tmp_path / "ready")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        found = afterboot.parse(text, "ready", Path("/nonexistent"))
        assert all(command.words[0] in afterboot._COMMANDS for command in found)


def test_it_is_looked_at_before_anything_is_launched(tmp_path: Path) -> None:
    (tmp_path / "ready").write_text("reboot\n")
    with pytest.raises(UsageError, match="line 1"):
        wanted.check_after_boot(Request(host_package="/x", after_boot=str(tmp_path / "ready")), wait=True)
    (tmp_path / "ready").write_text("root\n")
    with pytest.raises(UsageError, match="contradict"):
        wanted.check_after_boot(Request(host_package="/x", after_boot=str(tmp_path / "ready")), wait=False)


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an adb on PATH that writes down what it is asked; ``shell fail`` fails, ``shell hang`` hangs."""
    log = tmp_path / "log"
    log.touch()
    program = tmp_path / "bin/adb"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{log}\ncase "$*" in\n'
        "*get-state) echo device ;;\n*'shell fail'*) echo 'it is broken' >&2; exit 7 ;;\n"
        "*'shell hang'*) exec sleep 60 ;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return log


def test_each_instance_gets_all_of_it(adb: Path) -> None:
    commands = [Command(1, ("root",)), Command(2, ("shell", "one two"))]
    afterboot.run(record(numbers=(1, 3)), commands, deadline=time.monotonic() + 30)
    done = [line for line in adb.read_text().splitlines() if not line.endswith("get-state")]
    connect = "connect 127.0.0.1:{}".format
    assert done == [
        # After root, adbd is another process.
        *(connect(6520), "-s 127.0.0.1:6520 root", connect(6520), "-s 127.0.0.1:6520 shell one two"),
        *(connect(6522), "-s 127.0.0.1:6522 root", connect(6522), "-s 127.0.0.1:6522 shell one two"),
    ]


def test_a_failure_is_named_with_line_and_output(adb: Path) -> None:
    commands = [Command(4, ("shell", "fail")), Command(5, ("shell", "never"))]
    with pytest.raises(LaunchFailed) as caught, steps.reporting(steps.Silent()):
        afterboot.run(record(after_boot="/x/ready"), commands, deadline=time.monotonic() + 30)
    error = caught.value
    assert error.brief == "phone did not become ready: /x/ready, line 4: adb shell fail ended with status 7"
    assert error.details == "it is broken"
    assert error.phase == "after-boot"
    assert "never" not in adb.read_text()


def test_what_hangs_is_ended(adb: Path) -> None:
    with pytest.raises(DeadlinePassed, match="line 1: adb shell hang"):
        afterboot.run(record(after_boot="/x/ready"), [Command(1, ("shell", "hang"))], deadline=time.monotonic() + 0.5)


def test_nothing_to_do_asks_nobody(adb: Path) -> None:
    afterboot.run(record(), [], deadline=0)
    assert adb.read_text() == ""
