"""Lazy mode: taps from launch to stop, made by root's service for whoever holds the number, and for nobody else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import standins
from tests.system.host_helpers import changes, fails, python, python_argv, snapshot, taps_in_use
from tests.system.sandbox import Sandbox
from tests.system.watching import Watch, watching

USER = "tester"


def taps(box: Sandbox) -> set[str]:
    names = {link["ifname"] for link in json.loads(box.run("ip", "-j", "link").stdout)}
    return {name for name in names if "tap" in name or "wifiap" in name}


def taps_of(number: int) -> set[str]:
    return {f"cvd-{kind}-{number:02d}" for kind in ("etap", "wtap", "mtap", "wifiap")}


@pytest.fixture
def watch(sandbox: Sandbox) -> Iterator[Watch]:
    """Give a watched host with taps on request for 3 instances."""
    with watching(sandbox, "--lazy", "--instances", "3") as found:
        yield found


def ask(box: Sandbox, *args: str, user: str = USER) -> list[str]:
    """Ask the service in some way (tap_asker.py); return what it answered: ``done``, or the error's code and text."""
    return python(box, "tests.system.tap_asker", *args, user=user).stdout.splitlines()


def mended(watch: Watch) -> list[tuple[str, str]]:
    return [(change["action"], change["object"]) for event in watch.of("mended") for change in event["changes"]]


def test_set_up_and_taken_down(sandbox: Sandbox) -> None:
    before = snapshot(sandbox)
    made = changes(sandbox, "host", "setup", "--lazy", "--instances", "3")
    assert ("create", "mode lazy") in made
    assert not [name for _, name in made if name.startswith("tap")]
    assert taps(sandbox) == set()
    status = sandbox.json("host", "status", user=USER)
    assert (status["state"], status["instances"], status["lazy"], status["active"]) == ("ready", 3, True, [])
    # Again, without a word about it: it stays as it is.
    assert changes(sandbox, "host", "setup") == []
    # To all taps at once, and back: what nobody uses goes.
    sandbox.cfctl("host", "setup", "--no-lazy")
    assert taps(sandbox) == taps_of(1) | taps_of(2) | taps_of(3)
    assert sandbox.json("host", "status")["lazy"] is False
    with taps_in_use(sandbox, "cvd-etap-02"):
        sandbox.cfctl("host", "setup", "--lazy")
        assert taps(sandbox) == taps_of(2)
        assert sandbox.json("host", "status")["state"] == "ready"
    assert ("remove", "tap cvd-etap-02") in changes(sandbox, "host", "setup")
    assert taps(sandbox) == set()
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_none_from_the_start_is_any_on_request(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--lazy", "--instances", "0")
    status = sandbox.json("host", "status")
    assert (status["state"], status["instances"], status["served"]) == ("ready", 128, 128)
    sandbox.cfctl("host", "setup", "--instances", "0", "--no-lazy")
    assert sandbox.json("host", "status", "--instances", "0", "--no-lazy")["state"] == "absent"


def test_a_device_of_an_ordinary_user(watch: Watch, host_package: Path) -> None:
    box = watch.box
    before = box.snapshot()
    device = box.json("launch", "mine", user=USER)
    assert device["instances"][0]["number"] == 1
    assert taps(box) == taps_of(1)
    assert box.cfctl("adb", "mine", "shell", "uname", "-s", user=USER).stdout.strip() == "Linux"
    assert sum("masquerade" in line for line in box.run("nft", "list", "ruleset").stdout.splitlines()) == 4
    box.cfctl("restart", "mine", user=USER)
    assert taps(box) == taps_of(1)
    # A set-up meanwhile takes nothing away.
    assert changes(box, "host", "setup") == []
    box.cfctl("stop", "mine", user=USER)
    assert taps(box) == set()
    box.run("adb", "kill-server", user=USER)
    after = box.snapshot()
    for part in ("links", "addresses", "rules", "processes"):
        assert after[part] == before[part]
    asked = [event["text"].partition(" asked to ")[2] for event in watch.of("taps")]
    assert asked == [f"{what} the taps of instance 1" for what in ("make", "remove", "make", "remove")]
    assert watch.of("mended")[1:] == []


def test_two_devices_beside_each_other_and_one_that_fails(watch: Watch, host_package: Path, tmp_path: Path) -> None:
    box = watch.box
    # Nothing is left of a launch that fails after it has its taps.
    source = standins.write(tmp_path / "crash", "crash")
    shutil.copytree(source, f"/proc/{box.pid}/root/tmp/package-crash")
    done = box.cfctl("launch", "bad", "--host-package", "/tmp/package-crash", user=USER, check=False)
    assert done.returncode == 1
    assert taps(box) == set()
    box.cfctl("launch", "pair", "--num-instances", "2", user=USER)
    assert taps(box) == taps_of(1) | taps_of(2)
    # Root needs no service, and gets the next number.
    assert box.json("launch", "roots")["instances"][0]["number"] == 3
    status = box.json("host", "status")
    assert (status["state"], status["active"]) == ("ready", [1, 2, 3])
    error = fails(box, 1, "launch", "more", user=USER)
    assert "no 1 of the 3 instances that the host serves are free" in error
    assert "devices are up: cvd-1, cvd-2, cvd-3" in fails(box, 1, "host", "teardown")
    box.cfctl("stop", "pair", user=USER)
    assert taps(box) == taps_of(3)
    box.cfctl("rm", "--force", "roots")
    assert taps(box) == set()
    assert watch.of("mended")[1:] == []


def test_a_killed_device_leaves_taps_that_are_swept(watch: Watch, host_package: Path) -> None:
    box = watch.box
    box.cfctl("launch", "mine", user=USER)
    box.run("sh", "-c", "pkill -KILL run_cvd; pkill -KILL qemu-system; pkill -KILL -u 1000 -f bin/ || true")
    watch.until(lambda: taps(box) == set(), "the taps are swept")
    watch.until(lambda: ("remove", "tap cvd-etap-01") in mended(watch), "it says so")
    box.cfctl("stop", "mine", user=USER)
    box.cfctl("restart", "mine", user=USER)
    assert taps(box) == taps_of(1)
    box.cfctl("rm", "--force", "mine", user=USER)
    assert taps(box) == set()


def test_without_the_service(sandbox: Sandbox, host_package: Path) -> None:
    sandbox.cfctl("host", "setup", "--lazy", "--instances", "1")
    error = fails(sandbox, 4, "launch", "mine", user=USER)
    assert "the service that makes taps does not run" in error
    assert re.search(r"sudo /\S+ -m cfctl host run\n", error)
    assert taps(sandbox) == set()
    assert sandbox.run("cat", "/var/tmp/cvd/lock/local-instance-1.lock").stdout == "N"
    # It went away while a device was up: the device stops all the same, and a set-up sweeps.
    with watching(sandbox):
        sandbox.cfctl("launch", "mine", user=USER)
    done = sandbox.cfctl("stop", "mine", user=USER)
    assert "The taps of instance 1 stay" in done.stderr
    assert taps(sandbox) == taps_of(1)
    sandbox.cfctl("host", "setup")
    assert taps(sandbox) == set()


def test_a_holder_gets_its_taps(watch: Watch) -> None:
    box = watch.box
    assert ask(box, "make", "2") == ["done"]
    # Nobody holds the number any more.
    watch.until(lambda: taps(box) == set(), "the taps are swept")
    assert ask(box, "life", "2") == ["done", "done"]
    assert taps(box) == set()


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("nothing", "usage: one descriptor proves who holds the number, not 0"),
        ("unlocked", "number-taken: this does not prove that you hold instance number 2: Nobody has locked"),
        ("path", "number-taken: this does not prove"),
        ("other", "number-taken: this does not prove that you hold instance number 2"),
        ("elsewhere", "number-taken: this does not prove"),
        ("older", "number-taken: this does not prove"),
        ("replaced", "number-taken: this does not prove"),
        ("link", "number-taken: this does not prove"),
    ],
)
def test_proof_refused(watch: Watch, way: str, said: str) -> None:
    (answer,) = ask(watch.box, way, "2")
    assert answer.startswith(said)
    assert taps(watch.box) == set()
    # It is there for the next one.
    assert ask(watch.box, "life", "2") == ["done", "done"]


def test_a_number_that_somebody_else_holds(watch: Watch) -> None:
    box = watch.box
    holder = box.start(
        *python_argv("tests.system.tap_asker", "hold", "2"),
        user=USER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert [holder.stdout.readline().strip() for _ in range(2)] == ["done", "holding"]
    (answer,) = ask(box, "unlocked", "2")
    assert answer.startswith("number-taken: this does not prove that you hold instance number 2: Somebody else has")
    (answer,) = ask(box, "nothing", "2")
    assert answer.startswith("usage: one descriptor")
    assert taps(box) == taps_of(2)
    # Idle as it is, its holder keeps it: a set-up takes nothing away.
    assert changes(box, "host", "setup") == []
    holder.communicate()
    watch.until(lambda: taps(box) == set(), "the taps are swept")


def test_taps_in_use_are_not_removed(watch: Watch) -> None:
    box = watch.box
    made, refused, removed = ask(box, "use", "3")
    assert (made, removed) == ("done", "done")
    assert refused.startswith("devices-up: devices are up: cvd-3")
    assert taps(box) == set()


def test_strangers_and_noise(watch: Watch) -> None:
    box = watch.box
    stranger = "setpriv", "--reuid=1001", "--regid=1001", "--clear-groups"
    mode = box.run("stat", "-c", "%a %U %G", "/run/cfctl/taps.sock").stdout.strip()
    assert mode == "660 root cvdnetwork"
    done = box.run(*stranger, *python_argv("tests.system.tap_asker", "make", "1"), check=False)
    assert "PermissionError" in done.stderr
    # The peer is asked as well, should the mode be wrong.
    box.run("chmod", "666", "/run/cfctl/taps.sock")
    done = box.run(*stranger, *python_argv("tests.system.tap_asker", "nothing", "1"))
    assert done.stdout.startswith("host-lacks: you are not a member of group cvdnetwork")
    many = ask(box, "many", "1")
    assert many[0].startswith("usage: one descriptor proves who holds the number, not 2")
    assert many[1].startswith("usage: the request is too large, or has too many descriptors")
    answers = ask(box, "garbage", "1")
    assert len(answers) == 7
    assert all(answer.startswith("usage: ") for answer in answers)
    assert ask(box, "make", "4")[0].startswith("host-lacks: the host serves instances 1 to 3, not 4")
    # Whoever connects and says nothing keeps nobody else waiting, however often.
    slow = box.start(
        *stranger,
        *python_argv("tests.system.tap_asker", "slow", "1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert slow.stdout is not None
    assert slow.stdout.readline().strip() == "20"
    assert ask(box, "life", "1") == ["done", "done"]
    slow.communicate()
    assert len(box.run("ls", f"/proc/{watch.pid}/fd").stdout.split()) < 20


def test_several_at_once(watch: Watch) -> None:
    box = watch.box
    clients = [
        box.start(*python_argv("tests.system.tap_asker", "life", str(number)), user=USER, stdout=subprocess.PIPE)
        for number in (1, 2, 3)
    ]
    assert [client.communicate(timeout=120)[0] for client in clients] == ["done\ndone\n"] * 3
    assert taps(box) == set()
    assert box.json("host", "status")["state"] == "ready"


def test_on_somebody_elses_bridge(sandbox: Sandbox) -> None:
    sandbox.run("ip", "link", "add", "lan0", "type", "bridge")
    # Lock files stay: all holders must lock the same one.
    ask(sandbox, "touch", "2")
    before = snapshot(sandbox)
    with watching(sandbox, "--lazy", "--instances", "3", "--bridge", "lan0"):
        assert ask(sandbox, "life", "2") == ["done", "done"]
        holder = sandbox.start(
            *python_argv("tests.system.tap_asker", "hold", "2"),
            user=USER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "done"
        tap = json.loads(sandbox.run("ip", "-d", "-j", "link", "show", "cvd-etap-02").stdout)[0]
        assert (tap["master"], tap["ifalias"]) == ("lan0", "cfctl")
        # It knows its bridge, though no setting names it and hardly a tap is there.
        status = sandbox.json("host", "status")
        assert (status["state"], status["settings"]["host.bridge"]["value"]) == ("ready", "lan0")
        holder.communicate()
    sandbox.cfctl("host", "setup")
    assert taps(sandbox) == set()
    assert sandbox.json("host", "status")["settings"]["host.bridge"]["value"] == "lan0"
    sandbox.cfctl("host", "teardown")
    assert snapshot(sandbox) == before


def test_a_service_that_was_killed_is_followed_by_another(sandbox: Sandbox) -> None:
    with watching(sandbox, "--lazy", "--instances", "1") as watch:
        watch.signal("KILL")
        watch.child.wait(60)
    sandbox.run("test", "-S", "/run/cfctl/taps.sock")
    with watching(sandbox) as watch:
        assert watch.of("mended", "waiting") == []
        assert ask(sandbox, "life", "1") == ["done", "done"]
    assert sandbox.run("ls", "/run/cfctl").stdout.split() == ["host", "host.lock", "lazy.json", "watcher.lock"]


def test_a_subnet_that_is_taken_is_found_at_the_set_up(sandbox: Sandbox) -> None:
    sandbox.run("ip", "addr", "add", "192.168.97.9/32", "dev", "lo")
    error = fails(sandbox, 1, "host", "setup", "--lazy", "--instances", "3")
    assert "the host already routes subnets that the devices need" in error
    assert "mobile_subnet" in error
    assert changes(sandbox, "host", "teardown") == []
    # It is of instance 3.
    sandbox.cfctl("host", "setup", "--lazy", "--instances", "2")
