"""``cfctl host run``: it mends whatever happens to the network, quietly, and leaves all of it when it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.host_helpers import LOCK, changes, fails, snapshot, taps_in_use
from tests.system.sandbox import Sandbox
from tests.system.test_host_lazy import ask
from tests.system.watching import Watch, watching


@pytest.fixture
def watch(sandbox: Sandbox) -> Iterator[Watch]:
    """Give a watched host that serves two instances."""
    with watching(sandbox, "--instances", "2") as found:
        yield found


def ready(box: Sandbox) -> bool:
    return bool(box.json("host", "status", "--instances", "2", check=False)["state"] == "ready")


DAMAGES = {
    "tap deleted": ("ip link del cvd-mtap-02", {"tap cvd-mtap-02"}),
    "tap down": ("ip link set cvd-etap-01 down", {"tap cvd-etap-01"}),
    "rules flushed": ("nft flush ruleset", {"table ip cuttlefish_nat", "table inet cfctl"}),
    "one rule gone": (
        "nft flush chain inet cfctl forward",
        {'rule inet cfctl forward: iifname "cvd-*" oifname "cvd-*" drop'},
    ),
    "server killed": ("kill -9 $(cat /run/cuttlefish-dnsmasq-cvd-wbr.pid)", {"dnsmasq cvd-wbr"}),
    "address gone": ("ip addr del 192.168.98.1/24 dev cvd-ebr", {"bridge cvd-ebr"}),
    "bridge deleted": ("ip link del cvd-ebr", {"bridge cvd-ebr", "tap cvd-etap-01", "dnsmasq cvd-ebr"}),
    "forwarding off": ("echo 0 >/proc/sys/net/ipv4/ip_forward", {"sysctl net.ipv4.ip_forward"}),
}


def test_mends_whatever_happens(watch: Watch) -> None:
    box = watch.box
    for script, expected in DAMAGES.values():
        before = {name: watch.mended().count(name) for name in expected}

        def all_mended(before: dict[str, int] = before) -> bool:
            return all(watch.mended().count(name) > times for name, times in before.items())

        box.run("sh", "-c", script)
        watch.until(all_mended, script)
        watch.until(lambda: ready(box), f"ready after: {script}")
    assert watch.of("waiting", "quarrel") == []
    reasons = [change["reason"] for event in watch.of("mended") for change in event["changes"]]
    assert "it is not running" in reasons
    assert "its address is none, not 192.168.98.1/24 broadcast 192.168.98.255" in reasons


def test_its_end_changes_nothing(sandbox: Sandbox) -> None:
    for name in ("TERM", "INT", "KILL"):
        with watching(sandbox, "--instances", "1") as watch:
            before = box_state(sandbox, without=watch.pid)
            watch.signal(name)
            assert watch.child.wait(60) == (0 if name != "KILL" else -9)
            assert box_state(sandbox) == before
            assert [event["text"] for event in watch.of("ended")] == (
                ["Nobody watches the host any more; it stays as it is."] if name != "KILL" else []
            )
    assert sandbox.json("host", "status", "--instances", "1")["state"] == "ready"


def box_state(box: Sandbox, without: int = 0) -> dict[str, object]:
    found = snapshot(box)
    watcher = box.processes().get(without)
    found["processes"] = [line for line in found["processes"] if line != watcher]
    # A dnsmasq that has served nobody yet may write its file in its own time.
    found["files"] = [path for path in found["files"] if not path.endswith(".leases")]
    return found


def test_quiet_while_another_sets_up(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "2")
    with watching(sandbox) as watch:
        assert watch.of("mended") == []
        sandbox.cfctl("host", "setup", "--instances", "128")
        watch.until(lambda: "128 instances" in watch.of("ready")[-1]["text"], "it has seen it")
        assert sandbox.json("host", "status")["served"] == 128
        # What is damaged now is missed, though two things say how many there should be.
        sandbox.run(
            "sh",
            "-c",
            "nft flush ruleset; ip link del cvd-mtap-128; ip link del cvd-etap-128; "
            "ip link del cvd-wtap-128; ip link del cvd-wifiap-128",
        )
        watch.until(lambda: "tap cvd-mtap-128" in watch.mended(), "the last instance is mended")
        seen = len(watch.mended())
        sandbox.cfctl("host", "setup", "--instances", "3")
        watch.until(lambda: "3 instances" in watch.of("ready")[-1]["text"], "it has seen it")
        assert watch.mended()[seen:] == []
        assert watch.of("waiting", "quarrel") == []


def test_settings_are_read_again(sandbox: Sandbox) -> None:
    box = sandbox
    Path(f"/proc/{box.pid}/root/run/config.toml").write_text("[host]\ninstances = 1\n")
    with watching(box, "--config", "/run/config.toml") as watch:
        assert box.json("host", "status")["served"] == 1
        with taps_in_use(box, "cvd-etap-01"):
            Path(f"/proc/{box.pid}/root/run/config.toml").write_text("[host]\ninstances = 3\n")
            watch.signal("HUP")
            watch.until(lambda: box.json("host", "status", check=False)["served"] == 3, "three are served")
        Path(f"/proc/{box.pid}/root/run/config.toml").write_text("[host]\ninstances = many\n")
        watch.signal("HUP")
        (waiting,) = watch.until(lambda: watch.of("waiting"), "it says that the file is no good")
        assert waiting["error"]["code"] == "usage"
        # The settings before are as good as ever.
        box.run("ip", "link", "del", "cvd-etap-03")
        watch.until(lambda: "tap cvd-etap-03" in watch.mended(), "it is mended")
        # To taps on request, with a device up, and back.
        with taps_in_use(box, "cvd-etap-02"):
            Path(f"/proc/{box.pid}/root/run/config.toml").write_text("[host]\ninstances = 3\nlazy = true\n")
            watch.signal("HUP")
            watch.until(lambda: box.json("host", "status", check=False)["active"] == [2], "only the one in use stays")
            box.run("test", "-S", "/run/cfctl/taps.sock")
        watch.until(lambda: box.json("host", "status", check=False)["active"] == [], "and goes when it is not")
        Path(f"/proc/{box.pid}/root/run/config.toml").write_text("[host]\ninstances = 1\nlazy = false\n")
        watch.signal("HUP")
        watch.until(lambda: box.json("host", "status", check=False)["active"] == [1], "all are there")
        watch.until(lambda: not box.run("ls", "/run/cfctl").stdout.count("taps.sock"), "the service ends")


def test_running_devices_lose_nothing(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "3")
    with taps_in_use(sandbox, "cvd-mtap-03"), watching(sandbox, "--instances", "1") as watch:
        # The third stays, whole; the second goes; and the rest is mended.
        assert sandbox.json("host", "status", check=False)["active"] == [1, 3]
        sandbox.run("nft", "flush", "ruleset")
        watch.until(lambda: "table ip cuttlefish_nat" in watch.mended(), "the rules are mended")
        rules = sandbox.run("nft", "list", "ruleset").stdout
        assert "192.168.97.8/30 masquerade" in rules
        assert "192.168.97.4/30" not in rules
        tap = json.loads(sandbox.run("ip", "-j", "link", "show", "cvd-mtap-03").stdout)[0]
        assert "LOWER_UP" in tap["flags"]
    with watching(sandbox, "--instances", "1"):
        assert sandbox.json("host", "status", check=False)["active"] == [1]


def test_what_is_not_ours_is_waited_for(sandbox: Sandbox) -> None:
    sandbox.run("ip", "tuntap", "add", "cvd-ebr", "mode", "tap")
    with watching(sandbox, "--instances", "1") as watch:
        (waiting,) = watch.of("waiting")
        assert waiting["error"]["code"] == "foreign-object"
        assert "cvd-ebr" in waiting["text"]
        # Whoever asks is told again.
        watch.signal("HUP")
        watch.until(lambda: len(watch.of("waiting")) == 2, "it still waits")
        assert [event["event"] for event in watch.events()] == ["waiting", "reloaded", "waiting"]
        sandbox.run("ip", "link", "del", "cvd-ebr")
        watch.until(lambda: watch.of("ready"), "it goes on")
        assert len(watch.of("waiting")) == 2


def test_a_host_that_was_taken_down_stays_down(sandbox: Sandbox) -> None:
    before = snapshot(sandbox)
    with watching(sandbox, "--instances", "1") as watch:
        sandbox.cfctl("host", "teardown")
        watch.until(lambda: watch.of("down"), "it says so")
        after = box_state(sandbox, without=watch.pid)
        assert after == before | {"files": after["files"]}
        # Until somebody sets it up again: then it is watched as before.
        sandbox.cfctl("host", "setup", "--instances", "1")
        watch.until(lambda: len(watch.of("ready")) > 1, "it has seen it")
        sandbox.run("ip", "link", "del", "cvd-wbr")
        watch.until(lambda: "bridge cvd-wbr" in watch.mended()[12:], "it is mended")
        sandbox.cfctl("host", "teardown")
        watch.until(lambda: len(watch.of("down")) > 1, "it says so")
        watch.signal("HUP")
        watch.until(lambda: sandbox.json("host", "status", check=False)["state"] == "ready", "it was told to")


def test_somebody_takes_away_what_is_mended(watch: Watch) -> None:
    box = watch.box
    loop = "while :; do ip link del cvd-etap-02 2>/dev/null; sleep 0.5; done"
    other = box.start("sh", "-c", loop)
    try:
        (quarrel, *_) = watch.until(lambda: watch.of("quarrel"), "it says that somebody undoes its work")
        assert "tap cvd-etap-02" in quarrel["text"]
    finally:
        box.run("pkill", "-f", "while :")
        other.wait(60)
    watch.until(lambda: ready(box), "it is mended in the end")
    assert len(watch.of("mended")) < 12


def test_told_to_people(sandbox: Sandbox) -> None:
    log = sandbox.root / "people.log"
    with log.open("w") as sink:
        child = sandbox.start(*sandbox.cfctl_argv("host", "run", "--instances", "1"), stdout=sink, stderr=sink)
        watch = Watch(sandbox, child, log)
        watch.until(lambda: "The host serves 1 instance." in log.read_text(), "it is ready")
        sandbox.run("ip", "link", "del", "cvd-etap-01")
        watch.until(lambda: "create  tap cvd-etap-01: it is missing\n" in log.read_text(), "it is mended")
        sandbox.run("pkill", "-TERM", "-f", "cfctl host run")
        assert child.wait(60) == 0
    assert log.read_text().endswith("Nobody watches the host any more; it stays as it is.\n")
    assert LOCK[0] in sandbox.run("ls", "-d", "/run/cfctl").stdout


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_told(sandbox: Sandbox, kind: str) -> None:
    box = sandbox
    inside = "/run/notify" if kind == "path" else "@cfctl-notify"
    listener = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); "
        f"s.bind({inside!r}.replace('@',chr(0))); print('up',flush=True)\n"
        "while True: print(repr(s.recv(4096).decode()),flush=True)"
    )
    log = box.root / "notify.log"
    with log.open("w") as sink:
        manager = box.start("python3", "-c", listener, stdout=sink)
        env = {"NOTIFY_SOCKET": inside, "WATCHDOG_USEC": "400000"}
        try:
            while "up" not in log.read_text():
                assert manager.poll() is None
            with watching(box, "--instances", "1", env=env) as watch:
                watch.until(lambda: log.read_text().count("WATCHDOG=1") > 2, "signs of life")
                watch.signal("HUP")
                watch.until(lambda: log.read_text().count("READY=1") == 2, "it has read its settings")
                watch.signal("TERM")
                assert watch.child.wait(60) == 0
            said = [line for line in log.read_text().splitlines() if "WATCHDOG" not in line and "'STATUS" not in line]
            words = [line.strip("'").partition("\\n")[0] for line in said]
            assert words == ["up", "READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
            assert "STATUS=The host serves 1 instance." in log.read_text()
        finally:
            manager.kill()
            manager.wait()


def test_a_socket_from_systemd(sandbox: Sandbox) -> None:
    box = sandbox
    starter = (
        "import os,socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); "
        "os.makedirs('/run/cfctl',exist_ok=True); "
        "s.bind('/run/cfctl/taps.sock'); os.chmod('/run/cfctl/taps.sock',0o666); s.listen(); fd=s.fileno()\n"
        "os.dup2(fd,3) if fd!=3 else None; os.set_inheritable(3,True); "
        "os.environ.update(LISTEN_PID=str(os.getpid()),LISTEN_FDS='1'); os.execv(sys.argv[1],sys.argv[1:])"
    )
    argv = box.cfctl_argv("host", "run", "--json", "--lazy", "--instances", "1")
    log = box.root / "activated.log"
    with log.open("w") as sink:
        child = box.start("python3", "-c", starter, *argv, stdout=sink, stderr=sink)
        watch = Watch(box, child, log)
        watch.until(lambda: watch.of("ready"), "it is ready")
        assert ask(box, "life", "1") == ["done", "done"]
        box.run("pkill", "-TERM", "-f", "cfctl host run")
        assert child.wait(60) == 0
    # It is systemd's, and stays.
    box.run("test", "-S", "/run/cfctl/taps.sock")


def test_refusals(sandbox: Sandbox) -> None:
    assert "host run must run as root" in fails(sandbox, 4, "host", "run", user="tester")
    assert "a pod has one address" in fails(sandbox, 2, "host", "run", "--pod", "--lazy")
    assert "--netns goes with --pod" in fails(sandbox, 2, "host", "run", "--netns", "/proc/1/ns/net")
    with watching(sandbox, "--instances", "1") as watch:
        for args in (["--instances", "2"], ["--lazy", "--instances", "1"]):
            said = fails(sandbox, 1, "host", "run", *args)
            assert f"another cfctl host run watches this host, pid {watch.pid}\n" in said
            assert f"kill {watch.pid}\n" in said
        assert [event["event"] for event in watch.events()] == ["mended", "ready"]
        # One that sets up by hand is told that it will not last.
        said = sandbox.cfctl("host", "setup", "--instances", "2").stderr
        assert f"cfctl host run (pid {watch.pid}) watches this host" in said
        watch.until(lambda: sandbox.json("host", "status", check=False)["served"] == 1, "its settings count")
    assert "watches" not in sandbox.cfctl("host", "setup", "--instances", "2").stderr
    with watching(sandbox, "--instances", "2"):
        assert changes(sandbox, "host", "setup") == []
