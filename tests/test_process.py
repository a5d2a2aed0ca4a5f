"""Running programs: real ones, and every way they can end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cfctl import process
from cfctl.errors import CommandFailed, DeadlinePassed, MissingCommand


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def sleeper(log: Path) -> Iterator[process.Child]:
    """Give a process that ends by itself only after a minute."""
    child = process.start(["sleep", "60"], output=log)
    yield child
    child.send_signal(signal.SIGKILL)
    child.wait(10)


# -- run ---------------------------------------------------------------------------------------------------


def test_output_is_kept_apart() -> None:
    done = process.run(["sh", "-c", "echo out; echo err >&2"], timeout=10)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")
    assert done.argv[0].endswith("/sh")


def test_a_failure_keeps_the_output() -> None:
    with pytest.raises(CommandFailed) as caught:
        process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=10)
    assert caught.value.returncode == 3
    assert "out" in caught.value.output
    assert "err" in caught.value.output


def test_statuses_that_are_no_failure() -> None:
    assert process.run(["false"], timeout=10, success=(0, 1)).returncode == 1
    assert process.run(["false"], timeout=10, success=None).returncode == 1
    with pytest.raises(CommandFailed):
        process.run(["true"], timeout=10, success=(1,))


def test_death_by_signal() -> None:
    with pytest.raises(CommandFailed, match="sh was killed by signal 9"):
        process.run(["sh", "-c", "kill -9 $$"], timeout=10)


def test_the_deadline_kills() -> None:
    started = time.monotonic()
    with pytest.raises(DeadlinePassed) as caught:
        process.run(["sleep", "60"], timeout=0.3)
    assert time.monotonic() - started < 50
    assert caught.value.brief == "sleep did not end within 0.3 s"
    assert "sleep 60" in (caught.value.details or "")


def test_a_helper_that_keeps_the_pipe_does_not_keep_us() -> None:
    started = time.monotonic()
    with pytest.raises(DeadlinePassed):
        process.run(["sh", "-c", "sleep 20 & wait"], timeout=0.3)
    assert time.monotonic() - started < 15


def test_standard_input_is_empty_or_given() -> None:
    assert process.run(["cat"], timeout=10).stdout == ""
    assert process.run(["cat"], timeout=10, stdin="hello").stdout == "hello"


def test_a_missing_program_names_its_package() -> None:
    with pytest.raises(MissingCommand) as caught:
        process.run(["no-such-program"], timeout=10)
    assert caught.value.exit_code == 4
    assert "no-such-program" in (caught.value.resolution or "")


def test_a_program_that_the_kernel_cannot_start(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    with pytest.raises(CommandFailed) as caught:
        process.run([program], timeout=10)
    assert caught.value.returncode == 126


def test_output_that_is_no_text() -> None:
    assert "�" in process.run(python("import os; os.write(1, b'\\xff')"), timeout=10).stdout


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    done = process.run(["env"], timeout=10)
    assert {"OURS=1", "LC_ALL=C"} <= set(done.stdout.splitlines())
    done = process.run(["env"], timeout=10, env={"ONLY": "this"})
    assert done.stdout == "ONLY=this\n"


def test_the_command_can_be_pasted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        process.run(["echo", "two words"], timeout=10)
    assert caplog.messages[0].endswith("/echo 'two words'")


def test_directories_of_root_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert process.find("ldconfig") is not None
    assert process.find("no-such-program") is None


def test_an_empty_path_is_like_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert process.find("sh") is not None


# -- start -------------------------------------------------------------------------------------------------


def test_start_appends_its_output(log: Path) -> None:
    log.write_text("before\n")
    child = process.start(["sh", "-c", "echo out; echo err >&2"], output=log)
    assert child.wait(10) == 0
    assert log.read_text() == "before\nout\nerr\n"


def test_start_makes_a_session_in_the_root_directory(sleeper: process.Child) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid
    assert Path(f"/proc/{sleeper.pid}/cwd").resolve() == Path("/")


def test_a_started_program_ignores_sigpipe(sleeper: process.Child) -> None:
    status = Path(f"/proc/{sleeper.pid}/status").read_text()
    ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")), 16)
    assert ignored & (1 << (signal.SIGPIPE - 1))


def test_descriptors_are_handed_on_only_when_named(log: Path) -> None:
    kept, closed = os.memfd_create("kept", 0), os.memfd_create("closed", 0)
    try:
        child = process.start(["sleep", "60"], output=log, pass_fds=[kept])
        fds = {path.name for path in Path(f"/proc/{child.pid}/fd").iterdir()}
        assert str(kept) in fds
        assert str(closed) not in fds
    finally:
        os.close(kept)
        os.close(closed)
        child.send_signal(signal.SIGKILL)
        child.wait(10)


def test_a_child_can_die_with_its_parent(log: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import os, pathlib\nfrom cfctl import process\n"
        f"child = process.start(['sleep', '60'], output=pathlib.Path({str(log)!r}), die_with_parent=True)\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert process.run(python(code), timeout=20, success=None).returncode == -9
    pid = int(pid_file.read_text())
    until(lambda: not process.alive(pid))


def test_start_of_what_cannot_run(tmp_path: Path, log: Path) -> None:
    program = tmp_path / "broken"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    with pytest.raises(CommandFailed):
        process.start([program], output=log)
    with pytest.raises(MissingCommand):
        process.start(["no-such-program"], output=log)


def test_replace() -> None:
    code = "from cfctl import process\nprocess.replace(['sh', '-c', 'echo $X; exit 7'], env={'X': 'y'})"
    done = process.run(python(code), timeout=20, success=None)
    assert (done.returncode, done.stdout) == (7, "y\n")
    with pytest.raises(MissingCommand):
        process.replace(["no-such-program"])


# -- processes that are there ------------------------------------------------------------------------------


def test_what_is_known_of_a_process(log: Path) -> None:
    child = process.start(["sleep", "60"], output=log, env={"MARK": "a=b", "EMPTY": ""})
    try:
        assert child.pid in process.pids()
        # Between the end of execve and the new argv is a moment in which it is empty.
        until(lambda: process.command_line(child.pid)[1:] == ("60",))
        assert process.environment(child.pid) == {"MARK": "a=b", "EMPTY": ""}
        assert process.alive(child.pid)
        child.send_signal(signal.SIGSTOP)
        until(lambda: process.state(child.pid) == "T")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    assert process.command_line(child.pid) == ()
    assert process.environment(child.pid) == {}
    assert process.state(child.pid) == "X"


def test_a_zombie_is_not_alive() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    until(lambda: process.state(pid) == "Z")
    assert not process.alive(pid)
    assert process.end([pid], patience=0.1) == []
    os.waitpid(pid, 0)


def test_a_program_whose_name_looks_like_its_state(tmp_path: Path, log: Path) -> None:
    # proc_pid_stat(5) puts the name in brackets, and a name may contain some.
    odd = tmp_path / "a) Z 1 ("
    odd.symlink_to("/bin/sleep")
    child = process.start([odd, "60"], output=log)
    try:
        assert process.alive(child.pid)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)


def test_end_asks_first(log: Path) -> None:
    child = process.start(
        ["sh", "-c", "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"], output=log
    )
    wait_for(log, "ready")
    assert process.end([child.pid], patience=5) == []
    assert child.wait(10) == 0
    assert "asked" in log.read_text()


def test_end_kills_what_does_not_listen(log: Path) -> None:
    child = process.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], output=log)
    wait_for(log, "ready")
    assert process.end([child.pid], patience=0.3) == []
    assert child.wait(10) == -signal.SIGKILL


def test_end_by_another_signal(log: Path) -> None:
    child = process.start(["sleep", "60"], output=log)
    # Not SIGINT: a test run in the background of a shell ignores that, and so would the child.
    assert process.end([child.pid], patience=5, by=signal.SIGUSR1) == []
    assert child.wait(10) == -signal.SIGUSR1


def test_end_of_what_is_gone(sleeper: process.Child) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert process.end([child], patience=0.1) == []
    assert process.end([], patience=0.1) == []
    assert process.alive(sleeper.pid), "others are left alone"


def wait_for(log: Path, word: str) -> None:
    until(lambda: word in log.read_text())


def until(holds: Callable[[], bool]) -> None:
    """Wait until the condition holds; fail after 10 s."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
