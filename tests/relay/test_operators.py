"""Looking at a device by way of an operator elsewhere: a stock one, with or without WebSockets; a relay by TLS."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cfctl.v1 import relay_pb2, relay_pb2_grpc
from tests.relay import certificates
from tests.relay.relays import PATIENCE_S, REPO, Relay, running, wait
from tests.relay.screens import Streamer, streaming
from tests.schemas import conforms


def screen(*words: str) -> tuple[int, dict[str, Any]]:
    """Run ``cfctl screen`` as a host does that knows none of the devices; return its status and what it said."""
    with tempfile.TemporaryDirectory(prefix="cfctl-s-") as directory:
        variables = {f"CFCTL_PATHS_{one}": directory for one in ("CONFIG", "STATE", "CACHE", "RUNTIME")}
        done = subprocess.run(
            [sys.executable, "-m", "cfctl", "screen", *words, "--stats", "--seconds", "1", "--json"],
            env={"PATH": os.environ["PATH"], "HOME": directory, "PYTHONPATH": str(REPO), **variables},
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * PATIENCE_S,
        )
    return done.returncode, json.loads(done.stdout)


@contextlib.contextmanager
def stock(*words: str) -> Iterator[str]:
    """Run a stock operator with a device for the block; give its address."""
    with tempfile.TemporaryDirectory(prefix="cfctl-s-") as directory:
        place = f"{directory}/operator"
        argv = [sys.executable, "-m", "tests.screens.stock", place, "0", *words]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=REPO) as operator:
            assert operator.stdout is not None
            port = operator.stdout.readline().strip()
            streamer = Streamer("streamer", json.dumps({"socket": place, "device_id": "cvd_1-1-1"}))
            try:
                streamer.wait(lambda: streamer.events("registered"), "the streamer to register")
                yield f"http://127.0.0.1:{port}"
            finally:
                streamer.end()
                operator.kill()


@pytest.mark.parametrize("words", [(), ("--polling",)], ids=["websocket", "polling"])
def test_a_device_of_a_stock_operator(words: tuple[str, ...]) -> None:
    with stock(*words) as url:
        status, found = screen("cvd_1-1-1", "--operator", url)
        assert status == 0, found
        conforms(found, "screen")
        assert found["frames"] > 1
        status, found = screen("cvd_9", "--operator", url)
        assert status == 1
        assert "cvd_9 is not registered" in found["error"]["brief"]


def test_group_and_name_as_an_operator_lists_them() -> None:
    with running(web="127.0.0.1:0") as relay, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as launcher:
        launcher.connect(str(relay.root / "run/expected.sock"))
        devices = [{"id": "cvd_1-1-1", "name": "phone"}]
        launcher.send(json.dumps({"message_type": "pre-register", "group_name": "farm", "devices": devices}).encode())
        assert json.loads(launcher.recv(4096))[0]["status"] == "accepted"
        with streaming(relay, device_id="cvd_1-1-1"):
            where = ("--operator", relay.listeners["web"]["address"], "--token", relay.token("viewer"))
            status, found = screen("farm/phone", *where)
            assert status == 0, found


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    # Beyond loopback it speaks TLS.
    with running(web="0.0.0.0:0") as relay:
        yield relay


def test_a_link_tells_the_certificate_of_the_page_that_it_leads_to(relay: Relay) -> None:
    with relay.here() as channel:
        link = relay_pb2_grpc.RelayStub(channel).OpenScreen(relay_pb2.OpenScreenRequest(role="viewer"))
    assert link.fingerprint == relay.listeners["web"]["fingerprint"]


def test_of_a_relay_by_tls_no_certificate_but_its_own_is_accepted(relay: Relay, tmp_path: Path) -> None:
    url = f"https://127.0.0.1:{relay.listeners['web']['address'].rpartition(':')[2]}"
    where = ("pad-1", "--operator", url, "--token", relay.token("viewer"))
    own, other, none = tmp_path / "own.pem", tmp_path / "other.pem", tmp_path / "none.pem"
    own.write_bytes(relay.pem)
    other.write_bytes(certificates.other())
    none.write_text("nothing")
    with streaming(relay):
        status, found = screen(*where, "--operator-cert", str(own))
        assert (status, found.get("frames", 0) > 1) == (0, True), found
        for refused, said in ((("--operator-cert", str(other)), "another certificate"), ((), "nobody vouches")):
            status, found = screen(*where, *refused)
            assert status == 1
            assert found["error"]["code"] == "no-operator"
            assert said in found["error"]["brief"]
            assert "--operator-cert FILE" in found["error"]["resolution"]
        assert screen(*where, "--operator-cert", str(none))[0] == 2


@pytest.mark.parametrize(
    ("token", "said"), [((), "None was shown."), (("--token", "wrong"), "does not know the one")]
)
def test_what_mends_a_missing_or_wrong_token_is_a_token(token: tuple[str, ...], said: str) -> None:
    with running(web="127.0.0.1:0") as relay:
        status, found = screen("pad-1", "--operator", relay.listeners["web"]["address"], *token)
    assert status == 1
    assert "without a valid token" in found["error"]["brief"]
    assert said in found["error"]["details"]
    assert "cfctl relay token create" in found["error"]["resolution"]


def test_what_mends_an_operator_that_is_not_there_is_a_relay() -> None:
    status, found = screen("pad-1", "--operator", "http://127.0.0.1:1")
    assert status == 1
    assert "cfctl relay serve --web" in found["error"]["resolution"]
    assert "cfctl restart" in found["error"]["resolution"]


def test_ctrl_c_says_that_it_was_interrupted_and_no_more(tmp_path: Path) -> None:
    with running(web="127.0.0.1:0") as relay, streaming(relay):
        url, token = relay.listeners["web"]["address"], relay.token("viewer")
        asked = urllib.request.Request(f"{url}/api/devices/pad-1/stats", headers={"Authorization": f"Bearer {token}"})

        def seen() -> bool:
            with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
                return any(viewer["sent"] > 10 for viewer in json.load(answer)["viewers"])

        film = tmp_path / "film.webm"
        words = ("pad-1", "--operator", url, "--record", str(film), "--seconds", "600")
        variables = {f"CFCTL_PATHS_{one}": str(tmp_path) for one in ("CONFIG", "STATE", "CACHE", "RUNTIME")}
        with subprocess.Popen(
            [sys.executable, "-m", "cfctl", "screen", *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "CFCTL_SCREEN_TOKEN": token, **variables},
            stderr=subprocess.PIPE,
            text=True,
        ) as filming:
            wait(seen, "the film to begin")
            filming.send_signal(signal.SIGINT)
            _, said = filming.communicate(timeout=PATIENCE_S)
        assert filming.returncode == 130
        assert [line.partition(" (")[0] for line in said.splitlines()] == [
            "interrupted: film the screen",
            "Interrupted.",
        ]
        assert list(tmp_path.glob("*film*")) == []
