"""Screens from another network: TLS, a link, Chromium; through coturn where no other way is open; a real guest."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system import sandbox as sandboxes
from tests.system.sandbox import INSIDE, Sandbox

#: Of the cable between the two machines.
SERVER, CLIENT = "198.51.100.1", "198.51.100.2"
WEB, TURN = 8443, 3478

PYTHON = str(INSIDE / ".venv/bin/python")

PATIENCE_S = 120.0

#: Nothing but the page and TURN: what a strict network lets out.
_WALL = f"""
table inet wall {{
  chain out {{
    type filter hook output priority 0; policy drop;
    oifname lo accept
    tcp dport {{ {WEB}, {TURN} }} accept
    udp dport {TURN} accept
  }}
}}
"""


@dataclass
class Lab:
    host: Sandbox
    client: Sandbox

    def link(self, device: str) -> str:
        url: str = self.host.json("open", device)["url"]
        return url

    def look(self, device: str, *more: str) -> str:
        """Look at a device from the other machine; return what the statistics said."""
        done = self.client.run(PYTHON, "-m", "tests.system.look_at_screen", self.link(device), *more, timeout=300)
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return found["stats"]


@contextlib.contextmanager
def serving(host: Sandbox) -> Iterator[None]:
    """Run a relay for the block that shows screens."""
    where = ["--web", f"{SERVER}:{WEB}", "--turn", f"{SERVER}:{TURN}"]
    relay = host.start(*host.cfctl_argv("relay", "serve", *where, "--json"), stdout=subprocess.PIPE)
    assert relay.stdout is not None
    try:
        assert any(json.loads(line)["event"] == "ready" for line in relay.stdout)
        yield
    finally:
        host.run("pkill", "-TERM", "-f", "cfctl relay serve", check=False)
        relay.wait(PATIENCE_S)
        relay.stdout.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    base = tmp_path_factory.mktemp("screens")
    with sandboxes.sandbox(base / "host") as host, sandboxes.sandbox(base / "client") as client:
        link = ["ip", "link", "add", "lab0", "type", "veth", "peer", "name", "lab1", "netns", str(client.pid)]
        subprocess.run(["nsenter", "-t", str(host.pid), "-n", *link], check=True)
        for box, name, address in ((host, "lab0", SERVER), (client, "lab1", CLIENT)):
            box.run("ip", "addr", "add", f"{address}/24", "dev", name)
            box.run("ip", "link", "set", name, "up")
        with serving(host):
            yield Lab(host, client)


@pytest.fixture
def streamer(lab: Lab) -> Iterator[None]:
    about: dict[str, Any] = {"socket": "/run/cfctl/streamers.sock", "device_id": "pad-1"}
    child = lab.host.start(PYTHON, "-m", "tests.relay.streamer", json.dumps(about), stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert any(json.loads(line).get("event") == "registered" for line in child.stdout)
    yield
    lab.host.run("pkill", "-KILL", "-f", "tests.relay.streamer", check=False)
    child.wait(PATIENCE_S)
    child.stdout.close()


@pytest.mark.usefixtures("streamer")
def test_a_link_opens_the_screen_at_another_machine(lab: Lab) -> None:
    assert "(TURN)" not in lab.look("pad-1")


@pytest.mark.usefixtures("streamer")
def test_where_no_other_way_is_open_coturn_is_one(lab: Lab) -> None:
    lab.client.run("nft", "-f", "-", stdin=_WALL)
    try:
        assert "(TURN)" in lab.look("pad-1")
    finally:
        lab.client.run("nft", "delete", "table", "inet", "wall")


def test_what_is_typed_in_the_page_arrives_in_a_real_guest(lab: Lab, host_package: Path) -> None:
    lab.host.cfctl("host", "setup", "--instances", "1")
    lab.host.cfctl("launch", "pad")
    lab.look("pad", "echo typed >/tmp/typed\n")
    deadline = time.monotonic() + PATIENCE_S
    while lab.host.cfctl("adb", "pad", "shell", "cat", "/tmp/typed", check=False).stdout.strip() != "typed":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    lab.host.cfctl("rm", "pad", "--force", check=False)
