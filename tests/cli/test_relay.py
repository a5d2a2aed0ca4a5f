"""The verbs of ``cfctl relay``, from a shell: a user's own relay, its documents and its exit statuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.schemas import conforms

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def home() -> Iterator[dict[str, str]]:
    """Give the environment of somebody with directories of his own; a socket's path must be short."""
    with tempfile.TemporaryDirectory(prefix="cfctl-r-") as root:
        places = {f"CFCTL_PATHS_{name.upper()}": f"{root}/{name}" for name in ("config", "state", "cache", "runtime")}
        yield {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "HOME": root, "LC_ALL": "C.UTF-8", **places}


def cfctl(home: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``cfctl relay WORDS``."""
    argv = [sys.executable, "-m", "cfctl", "relay", *words]
    return subprocess.run(argv, env=home, capture_output=True, text=True, timeout=60, check=False)


def test_a_relays_life(home: dict[str, str]) -> None:
    stopped = cfctl(home, "status", "--json")
    assert (stopped.returncode, json.loads(stopped.stdout)) == (3, {"state": "stopped"})
    conforms(json.loads(stopped.stdout), "relay-status")
    argv = [
        sys.executable,
        "-m",
        "cfctl",
        "relay",
        "serve",
        "--grpc",
        "127.0.0.1:0",
        "--metrics",
        "[::1]:0",
        "--web",
        "127.0.0.1:0",
        "--json",
    ]
    with subprocess.Popen(argv, env=home, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        try:
            heard = []
            for line in serving.stdout:
                heard.append(json.loads(line))
                conforms(heard[-1], "relay-event")
                if heard[-1]["event"] == "ready":
                    break
            assert [event.get("what") for event in heard] == ["unix", "grpc", "metrics", "web", "streamers", None]
            status = json.loads(cfctl(home, "status", "--json").stdout)
            conforms(status, "relay-status")
            assert (status["state"], status["pid"]) == ("running", serving.pid)
            assert [{"event": "listening", **listener} for listener in status["listeners"]] == heard[:5]
            shown = cfctl(home, "status")
            assert status["listeners"][1]["fingerprint"] in shown.stdout
        finally:
            serving.send_signal(signal.SIGTERM)
        (left,) = [json.loads(line) for line in serving.stdout]
        conforms(left, "relay-event")
    assert serving.returncode == 0


def test_tokens(home: dict[str, str]) -> None:
    made = json.loads(
        cfctl(home, "token", "create", "--role", "admin", "--device", "farm-*", "--own", "--json").stdout
    )
    conforms(made, "token")
    assert (made["role"], made["devices"], made["expired"]) == ("admin", "farm-*", False)
    listed = json.loads(cfctl(home, "token", "list", "--own", "--json").stdout)
    conforms(listed, "tokens")
    secret = made.pop("secret")
    assert listed == {"tokens": [made]}
    shown = cfctl(home, "token", "list", "--own").stdout
    assert secret not in shown
    assert [line.split() for line in shown.splitlines()] == [
        ["ID", "ROLE", "USER", "EXPIRES", "DEVICES"],
        [made["id"], "admin", made["user"], made["expires_at"], "farm-*"],
    ]
    revoked = cfctl(home, "token", "revoke", made["id"], "--own", "--json")
    conforms(json.loads(revoked.stdout), "token")
    assert json.loads(cfctl(home, "token", "list", "--own", "--json").stdout) == {"tokens": []}
    plain = cfctl(home, "token", "create", "--own")
    assert plain.stdout.startswith("cfctl_")
    # The secret alone, for files and pipes; what is to be known about it is for people.
    assert len(plain.stdout.splitlines()) == 1
    assert "It is not shown again" in plain.stderr
    assert "--token-file" in plain.stderr
    assert cfctl(home, "token", "create", "--own", "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serve", "--grpc", "7070"), "--grpc: '7070' is not a value for relay.grpc"),
        (("serve", "--grpc", "::1:7070"), "one of IPv6 in brackets"),
        (("serve", "--grpc", "127.0.0.1:70000"), "an address to listen on is needed"),
        (("serve", "--tls-cert", "/nowhere.pem"), "a certificate and its key belong together"),
        (
            ("serve", "--grpc", "127.0.0.1:0", "--tls-cert", "/no.pem", "--tls-key", "/no.key"),
            "cannot be used for TLS",
        ),
        (("token", "create", "--role", "root"), "'root' is no role"),
        (("token", "create", "--ttl", "1y"), "'1y' is no time"),
        (("token", "create", "--user", "no-such-user"), "this host knows no user"),
        (("token", "revoke", "00000000"), "there is no token"),
    ],
)
def test_what_makes_no_sense(home: dict[str, str], words: tuple[str, ...], said: str) -> None:
    done = cfctl(home, *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not list(Path(home["CFCTL_PATHS_RUNTIME"]).glob("*.sock"))


def test_an_address_that_is_taken(home: dict[str, str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = cfctl(home, "serve", "--grpc", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"the relay cannot listen on 127.0.0.1:{port}" in done.stderr
    assert f"ss -ltnp 'sport = :{port}'" in done.stderr


def test_an_address_that_is_another_hosts(home: dict[str, str]) -> None:
    # RFC 5737: nobody's.
    done = cfctl(home, "serve", "--grpc", "192.0.2.1:7070")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: the relay cannot listen on 192.0.2.1:7070",
        "  Cannot assign requested address",
        "  See which addresses this host has: ip -brief address",
    ]


def test_people_are_told_where_it_listens_and_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    from cfctl.cli.relay import _tell

    error = {"code": "failed", "brief": "no", "details": "because", "resolution": "Do this: that"}
    for document in (
        {"event": "listening", "what": "web", "address": "https://lab:8443", "fingerprint": "ab"},
        {"event": "listening", "what": "streamers", "address": "/run/streamers.sock"},
        {"event": "ready"},
        {"event": "error", "error": error},
    ):
        _tell(document)
    assert capsys.readouterr().out.splitlines() == [
        "web       https://lab:8443",
        "          certificate SHA-256 ab",
        "streamers /run/streamers.sock",
        "Serving until Ctrl-C; devices run on then. Links to screens: cfctl open NAME",
        *("no", "because", "Do this: that"),
    ]
