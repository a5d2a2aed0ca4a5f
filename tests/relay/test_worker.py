"""Children that are cfctl itself: their documents, their errors, and their end, whoever ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cfctl.errors import CfctlError, DeadlinePassed, FromElsewhere, RelayBusy
from cfctl.relay import people, worker
from cfctl.relay.worker import Worker

#: A stand-in for cfctl: what the first word says, it does.
_PROGRAM = """
import json, os, signal, sys, time
word = sys.argv[1]
if word == "huge":
    print(json.dumps({"text": "x" * (3 << 20)}))
if word == "chatter":
    print("no JSON"); print("[1]"); print(json.dumps({"n": 1}))
if word == "silent":
    sys.exit("nothing to say")
if word == "loud":
    sys.stderr.write("e" * 1000000); print(json.dumps({"n": 1}))
if word == "where":
    print(json.dumps({"cwd": os.getcwd(), "env": dict(os.environ), "argv": sys.argv[1:]}))
if word == "fed":
    print(json.dumps({"read": sys.stdin.read(), "argv": sys.argv[1:]}))
if word == "stubborn":
    signal.signal(signal.SIGINT, lambda *_: open(sys.argv[2], "w").close())
    print(json.dumps({"n": 1}), flush=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and not os.path.exists(sys.argv[2] + ".undone"):
        time.sleep(0.01)
"""


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Give a worker whose children are the stand-in."""
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    monkeypatch.setattr(worker, "_argv", lambda argv: [sys.executable, str(program), *argv, "--json"])
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    return Worker(2, nowhere)


def _me() -> people.User:
    return people.by_uid(os.geteuid())


def test_documents(crew: Worker) -> None:
    async def run() -> list[dict[str, Any]]:
        return [line async for line in crew.lines(_me(), ["chatter"])]

    assert asyncio.run(run()) == [{"n": 1}]
    assert crew.children == 0


def test_a_child_is_nowhere_and_has_nothing_of_ours(crew: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("ANDROID_HOST_OUT", "/planted")
    document = asyncio.run(crew.document(_me(), ["where"], seconds=60))
    assert document["cwd"].endswith("/nowhere")
    assert not {"NOTIFY_SOCKET", "ANDROID_HOST_OUT"} & set(document["env"])
    assert document["env"]["CFCTL_RELAY"] == "local"
    assert document["argv"] == ["where", "--json"]


def test_what_is_not_for_everybody_to_read_is_fed(crew: Worker) -> None:
    document = asyncio.run(crew.document(_me(), ["fed"], seconds=60, fed=b"secret" * 500))
    assert document == {"read": "secret" * 500, "argv": ["fed", "--json"]}
    assert asyncio.run(crew.document(_me(), ["fed"], seconds=60))["read"] == ""
    # Who ends before he has read it is no trouble.
    assert asyncio.run(crew.document(_me(), ["where"], seconds=60, fed=b"secret"))["argv"] == ["where", "--json"]


def test_another_users_child_has_a_logins_minimum() -> None:
    other = people.User("other", os.geteuid() + 1, 7, (7,), "/home/other")
    assert other.credentials is not None
    found = worker.environment(other)
    assert (found["HOME"], found["USER"]) == ("/home/other", "other")
    assert set(found) <= {
        *("PATH", "LANG", "HOME", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "PYTHONPATH", "NO_COLOR", "CFCTL_RELAY")
    }


def test_one_that_says_nothing(crew: Worker) -> None:
    with pytest.raises(CfctlError, match="ended with status 1") as caught:
        asyncio.run(crew.document(_me(), ["silent"], seconds=60))
    assert caught.value.details == "nothing to say"


def test_one_that_says_too_much(crew: Worker) -> None:
    assert asyncio.run(crew.document(_me(), ["loud"], seconds=60)) == {"n": 1}
    with pytest.raises(CfctlError, match="a line that no verb prints"):
        asyncio.run(_settled(crew, lambda: crew.document(_me(), ["huge"], seconds=60)))
    assert crew.children == 0


async def _settled(crew: Worker, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    try:
        return await work()
    finally:
        await crew.settle()


def test_whoever_stops_waiting_has_the_work_undone(crew: Worker, tmp_path: Path) -> None:
    told = tmp_path / "told"

    async def run() -> None:
        with pytest.raises(DeadlinePassed, match="did not end within"):
            await crew.document(_me(), ["stubborn", str(told)], seconds=1)
        assert crew.children == 1
        while not told.exists():
            await asyncio.sleep(0.01)
        told.with_suffix(".undone").touch()
        await crew.settle()
        assert crew.children == 0

    asyncio.run(run())


def test_not_too_many_at_once(crew: Worker, tmp_path: Path) -> None:
    undone = tmp_path / "told.undone"

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                lines: Any = crew.lines(_me(), ["stubborn", str(tmp_path / "told")])
                await stack.enter_async_context(contextlib.aclosing(lines))
                assert await anext(lines) == {"n": 1}
            with pytest.raises(RelayBusy):
                await crew.document(_me(), ["chatter"], seconds=60)
        undone.touch()
        await crew.settle()
        assert await crew.document(_me(), ["chatter"], seconds=60) == {"n": 1}

    asyncio.run(run())


def test_short_verbs_wait_for_their_turn(crew: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_AT_ONCE", 1)

    async def run() -> list[dict[str, Any]]:
        return await asyncio.gather(*(crew.document(_me(), ["chatter"], seconds=60) for _ in range(6)))

    assert asyncio.run(run()) == [{"n": 1}] * 6


async def _every(lines: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line async for line in lines]


def test_an_error_of_a_verb_is_the_error_of_the_call(tmp_path: Path) -> None:
    """With cfctl itself: its code and its exit status come through."""
    (tmp_path / "nowhere").mkdir()
    real = Worker(2, tmp_path / "nowhere")
    with pytest.raises(FromElsewhere) as caught:
        asyncio.run(_every(real.lines(_me(), ["status", "no-such-phone"])))
    assert (caught.value.code, caught.value.exit_code) == ("no-such-device", 1)
    with pytest.raises(FromElsewhere) as caught:
        asyncio.run(_every(real.lines(_me(), ["status", "phone/x"])))
    assert (caught.value.code, caught.value.exit_code) == ("usage", 2)
