"""Ctrl-C in the middle of a set-up: all goes at once, and it is not called a failure."""

from __future__ import annotations

import time
from pathlib import Path

from tests.system.host_helpers import python_argv, snapshot
from tests.system.sandbox import Sandbox

#: Presses Ctrl-C when the taps are there and have not got all that they need.
_IP = r"""#!/bin/sh
case "$*" in *-batch*)
    cat >/run/batch
    if grep -q 'dev cvd-etap-01 alias' /run/batch; then kill -INT $PPID; exec sleep 60; fi
    exec ip.real "$@" </run/batch
esac
exec ip.real "$@"
"""
_MONITOR_S = 60


def test_taps_go_at_once(sandbox: Sandbox) -> None:
    box = sandbox
    stand_in = Path(f"/proc/{box.pid}/root/run/bin/ip")
    stand_in.parent.mkdir()
    stand_in.write_text(_IP)
    stand_in.chmod(0o755)
    box.run("sh", "-c", "ln -s $(command -v ip) /run/bin/ip.real")
    before = snapshot(box)
    log = box.root / "monitor.log"
    with log.open("w") as sink:
        monitor = box.start("ip", "-o", "monitor", "link", stdout=sink)
    try:
        while not log.read_text():
            assert monitor.poll() is None
            box.run("ip", "link", "set", "lo", "down")
            box.run("ip", "link", "set", "lo", "up")
        path = box.run("printenv", "PATH").stdout.strip()
        done = box.cfctl("host", "setup", "--instances", "2", env={"PATH": f"/run/bin:{path}"}, check=False)
        deadline = time.monotonic() + _MONITOR_S
        while log.read_text().count("Deleted") < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        box.run("pkill", "-f", "ip -o monitor", check=False)
        monitor.wait(60)
    assert done.returncode == 130, done.stderr
    assert "interrupted: make 8 taps" in done.stderr
    assert "FAILED" not in done.stderr
    # All in one link group, which the kernel deletes in one go: singly, 512 of them take 10 s.
    deleted = [line for line in log.read_text().splitlines() if line.startswith("Deleted") and "tap" in line]
    groups = {line.partition(" group ")[2].split()[0] for line in deleted}
    assert len(groups) == 1, deleted
    assert groups != {"default"}
    found = snapshot(box)
    found["files"] = [path for path in found["files"] if path != "/run/batch"]
    assert found == before


def test_taps_that_were_there_stay(sandbox: Sandbox) -> None:
    sandbox.cfctl("host", "setup", "--instances", "1")
    script = (
        "from cfctl.hostres import tap\n"
        "try:\n"
        "    with tap.opened(['cvd-etap-01', 'cvd-etap-02', 'cvd-etap-03'], 970, print) as fds:\n"
        "        tap.persist(fds[1:2])\n"
        "        raise KeyboardInterrupt\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
    )
    # Persistent before, made persistent now, neither.
    assert sandbox.run(*python_argv("x")[:1], "-c", script).stdout == "['cvd-etap-03']\n"
    links = sandbox.run("ip", "-o", "link").stdout
    assert "cvd-etap-01" in links
    assert "cvd-etap-02" in links
    assert "cvd-etap-03" not in links
