"""Interrupts that come while an earlier one is being answered."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]

#: Says each thing when it comes to it, and goes on when it is told to.
_PROGRAM = """
import sys, time
from cfctl import signals, steps
class Told(steps.Silent):
    def note(self, text): print(text, flush=True)
def wait(): sys.stdin.readline()
with steps.reporting(Told()), signals.first_counts():
    try:
        print("begun", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("undoing", flush=True)
        wait()
        print("undone", flush=True)
        wait()
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    argv = ["env", "--default-signal=INT,HUP", sys.executable, "-c", _PROGRAM]
    with subprocess.Popen(argv, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield child
        child.kill()


def said(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def go_on(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None
    program.stdin.write("\n")
    program.stdin.flush()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_only_the_first_interrupts(program: subprocess.Popen[str], first: signal.Signals) -> None:
    assert said(program) == "begun"
    program.send_signal(first)
    assert said(program) == "undoing"
    for number in (signal.SIGINT, signal.SIGTERM):
        program.send_signal(number)
        assert said(program) == "Cleaning up; it ends by itself."
    go_on(program)
    assert said(program) == "undone"
    go_on(program)
    assert program.wait(30) == 0


def test_what_nohup_ignores_stays_ignored() -> None:
    code = (
        "import os, signal\nfrom cfctl import signals\n"
        "with signals.first_counts(): os.kill(os.getpid(), signal.SIGHUP)\nprint('still there')"
    )
    done = subprocess.run(
        ["nohup", sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "still there\n"
