"""Locks: kernel locks against real second processes, and the number protocol that cvd and acloud share."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl.errors import CfctlError, HostLacks, NumberTaken
from cfctl.instance import Instance
from cfctl.locks import NumberLock, exclusive, holder, sole

REPO = Path(__file__).resolve().parents[1]
SEVEN = Instance(7)

#: Another tool: it holds a flock on the file until its standard input ends.
_HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o666)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        assert holder.stdin is not None
        holder.stdin.close()


def free(path: Path) -> bool:
    """Tell whether another process could take the flock now."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """Give three lock directories, of which the second does not exist."""
    (tmp_path / "acloud").mkdir()
    return [tmp_path / "cvd" / "lock", tmp_path / "old", tmp_path / "acloud"]


def lock_file(directory: Path) -> Path:
    return directory / "local-instance-7.lock"


# -- one lock for a piece of work --------------------------------------------------------------------------


def test_exclusive(tmp_path: Path) -> None:
    path = tmp_path / "run" / "host.lock"
    with exclusive(path):
        assert not free(path)
        assert path.stat().st_mode & 0o777 == 0o600
    assert free(path)
    assert path.exists(), "all holders must lock the same inode"


def test_exclusive_waits_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "host.lock"
    said, got = threading.Event(), threading.Event()

    def second() -> None:
        with exclusive(path, on_wait=said.set):
            got.set()

    with held_by_another_process(path) as holder:
        thread = threading.Thread(target=second)
        thread.start()
        assert said.wait(10)
        assert not got.is_set()
        holder.kill()
        assert got.wait(10), "the kernel releases the lock of a killed holder"
        thread.join()


def test_exclusive_is_released_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "lock"):
        _ = 1 / 0
    assert free(tmp_path / "lock")


def test_exclusive_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"), exclusive(tmp_path / "lock"):
        pass
    assert not (tmp_path / "victim").exists()


def test_sole_and_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "run" / "watcher.lock"
    assert holder(path) is None
    script = (
        "import os, pathlib, sys\nfrom cfctl import locks\n"
        "with locks.sole(pathlib.Path(sys.argv[1])):\n    print(os.getpid(), flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        pid = int(other.stdout.readline())
        assert holder(path) == pid
        with pytest.raises(BlockingIOError), sole(path):
            pass
        other.kill()
    assert holder(path) is None
    with sole(path):
        pass


# -- instance numbers --------------------------------------------------------------------------------------


def test_take_and_release(places: list[Path]) -> None:
    lock = NumberLock.take(SEVEN, places)
    for place in (places[0], places[2]):
        assert lock_file(place).read_bytes() == b"I"
        assert not free(lock_file(place))
    assert not places[1].exists(), "only today's directory is made"
    lock.release()
    for place in (places[0], places[2]):
        assert lock_file(place).read_bytes() == b"N"
        assert free(lock_file(place))
    NumberLock.take(SEVEN, places).release()


def test_the_files_can_be_opened_by_other_users(places: list[Path]) -> None:
    before = os.umask(0o077)
    try:
        NumberLock.take(SEVEN, places).release()
    finally:
        os.umask(before)
    assert lock_file(places[0]).stat().st_mode & 0o777 == 0o666


def test_a_number_that_another_process_holds(places: list[Path]) -> None:
    # acloud holds it in its own directory only; ours must be as before.
    with held_by_another_process(lock_file(places[2])):
        with pytest.raises(NumberTaken) as caught:
            NumberLock.take(SEVEN, places)
        assert caught.value.brief == "instance number 7 is in use"
        assert caught.value.resolution == "See who has it with: cfctl ps"
        assert lock_file(places[0]).read_bytes() == b""
        assert free(lock_file(places[0]))
    NumberLock.take(SEVEN, places).release()


@pytest.mark.parametrize("index", [0, 2])
def test_a_number_that_is_marked(places: list[Path], index: int) -> None:
    places[index].mkdir(parents=True, exist_ok=True)
    lock_file(places[index]).write_bytes(b"I")
    with pytest.raises(NumberTaken) as caught:
        NumberLock.take(SEVEN, places)
    assert caught.value.brief == "instance number 7 is marked as in use"
    assert f"rm {lock_file(places[index])}" in (caught.value.resolution or "")
    assert free(lock_file(places[index]))
    NumberLock.take(SEVEN, places, ours=True).release()


def test_ours_does_not_overrule_a_holder(places: list[Path]) -> None:
    places[0].mkdir(parents=True)
    with held_by_another_process(lock_file(places[0])), pytest.raises(NumberTaken):
        NumberLock.take(SEVEN, places, ours=True)


@pytest.mark.parametrize("content", [b"", b"N", b"N\n", b"x"])
def test_other_content_is_free(places: list[Path], content: bytes) -> None:
    places[0].mkdir(parents=True)
    lock_file(places[0]).write_bytes(content)
    NumberLock.take(SEVEN, places).release()


def test_close_keeps_the_mark(places: list[Path]) -> None:
    lock = NumberLock.take(SEVEN, places)
    lock.close()
    assert lock.fds == ()
    assert lock_file(places[0]).read_bytes() == b"I"
    assert free(lock_file(places[0]))
    with pytest.raises(NumberTaken):
        NumberLock.take(SEVEN, places)


def test_a_child_keeps_the_number(places: list[Path]) -> None:
    lock = NumberLock.take(SEVEN, places)
    with subprocess.Popen(["sleep", "60"], pass_fds=lock.fds) as child:
        lock.close()
        assert not free(lock_file(places[0]))
        child.kill()
    assert free(lock_file(places[0]))


def test_a_killed_holder_leaves_the_mark_and_no_lock(places: list[Path]) -> None:
    code = (
        "import os, pathlib, sys\nfrom cfctl.instance import Instance\nfrom cfctl.locks import NumberLock\n"
        "NumberLock.take(Instance(7), [pathlib.Path(p) for p in sys.argv[1:]])\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, *places], env={"PYTHONPATH": str(REPO)}, check=False, timeout=20)
    assert lock_file(places[0]).read_bytes() == b"I"
    NumberLock.take(SEVEN, places, ours=True).release()


def test_a_file_that_is_replaced_while_we_open_it(monkeypatch: pytest.MonkeyPatch, places: list[Path]) -> None:
    # cvd removes the file when it gives a number back: the lock on the removed one is worth nothing.
    path = lock_file(places[0])
    real, calls = fcntl.flock, 0

    def flock(fd: int, operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            path.unlink()
            path.touch()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = NumberLock.take(SEVEN, places[:1])
    monkeypatch.undo()
    assert calls == 2
    assert os.path.samestat(os.fstat(lock.fds[0]), path.stat())
    assert path.read_bytes() == b"I"
    lock.release()


def test_no_descriptor_is_left_by_a_failure(places: list[Path]) -> None:
    (places[2] / "local-instance-7.lock").write_bytes(b"I")
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    with pytest.raises(NumberTaken):
        NumberLock.take(SEVEN, places)
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before


def test_a_link_is_not_followed(places: list[Path], tmp_path: Path) -> None:
    places[0].mkdir(parents=True)
    lock_file(places[0]).symlink_to(tmp_path / "victim")
    with pytest.raises(CfctlError):
        NumberLock.take(SEVEN, places)
    assert not (tmp_path / "victim").exists()


def test_what_is_no_file(places: list[Path]) -> None:
    places[0].mkdir(parents=True)
    os.mkfifo(lock_file(places[0]))
    with pytest.raises(CfctlError, match="is not a regular file"):
        NumberLock.take(SEVEN, places)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostLacks) as caught:
        NumberLock.take(SEVEN, [tmp_path / "file" / "lock"])
    assert "cvdnetwork" in (caught.value.resolution or "")


def test_two_processes_never_both_get_it(places: list[Path]) -> None:
    code = (
        "import pathlib, sys, time\nfrom cfctl.errors import NumberTaken\nfrom cfctl.instance import Instance\n"
        "from cfctl.locks import NumberLock\n"
        "try:\n    lock = NumberLock.take(Instance(7), [pathlib.Path(p) for p in sys.argv[1:]])\n"
        "except NumberTaken:\n    print('no')\nelse:\n    print('yes', flush=True)\n    sys.stdin.read()\n"
    )
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", code, *places],
            env={"PYTHONPATH": str(REPO)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    answers = [(contender.stdout.readline() if contender.stdout else "") for contender in contenders]
    for contender in contenders:
        contender.communicate("")
    assert sorted(answers) == ["no\n"] * 5 + ["yes\n"]
