"""Which verbs are done through a relay, and which are refused there: by the real command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cfctl.cli import common, elsewhere, remote_device
from cfctl.cli.app import app, run
from cfctl.errors import NotRunning
from cfctl.remote import contexts
from cfctl.remote.contexts import Context
from tests.remote.test_channel import own, pinned, serving
from tests.schemas import conforms

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for what in ("CONFIG", "STATE", "RUNTIME"):
        monkeypatch.setenv(f"CFCTL_PATHS_{what}", str(tmp_path / what.lower()))
    monkeypatch.delenv("CFCTL_RELAY", raising=False)
    return tmp_path


@pytest.fixture
def known(home: Path) -> Context:
    """Know a relay that is not there."""
    context = Context("lab", f"unix:{home}/relay.sock")
    contexts.add(context)
    return context


def test_nothing_named_and_nothing_in_use_is_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    # A name that no VM of this machine has: verbs see those that cfctl did not make, too.
    assert run(["status", "no-such-phone", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "no-such-device"


@pytest.mark.parametrize(
    "argv",
    [
        *(["ps"], ["status", "phone"], ["stop", "phone"], ["restart", "phone"], ["launch", "phone"]),
        *(["logs", "phone"], ["adb", "phone", "shell"], ["suspend", "phone"], ["resume", "phone"]),
        *(["powerbtn", "phone"], ["display", "phone"], ["control", "phone", "vcpus"]),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("known")
def test_verbs_that_go_there(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers there: that is what each says, however the relay was chosen."""

    def unreachable(words: list[str]) -> None:
        assert run(words) == 1
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("FAILED ")]
        assert said[0].startswith("Error: no relay answers at unix:")
        assert said[1] == "  No such file or directory"

    unreachable(["--relay", "lab", *argv])
    contexts.use("lab")
    unreachable(argv)
    contexts.use("local")
    monkeypatch.setenv("CFCTL_RELAY", "lab")
    unreachable(argv)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["rm", "phone"], "deletes a device's disks"),
        (["powerwash", "phone"], "wipes a guest's disks"),
        (["snapshot", "phone", "take", "/s"], "nobody from elsewhere says where it writes"),
        (["screen-record", "phone", "start"], "a file of the relay's host"),
        (["bugreport", "phone"], "a file of the relay's host"),
        (["host", "status"], ""),
        (["images", "list"], ""),
        (["demo"], ""),
        (["clean"], ""),
    ],
)
@pytest.mark.usefixtures("known")
def test_verbs_that_do_not(argv: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--relay", "lab", *argv, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    path = " ".join(argv[: 2 if argv[0] in ("host", "images") else 1])
    assert error["brief"] == f"cfctl {path} is not done through a relay"
    assert "launch, logs, powerbtn, ps, restart" in error["details"]
    assert why in error["details"]
    assert f"Log in on the relay's host, and there: cfctl {path}\n" in error["resolution"]
    assert f"cfctl --relay local {path}" in error["resolution"]


@pytest.mark.usefixtures("known")
def test_a_link_is_made_on_the_relay_s_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--relay", "lab", "open", "phone"]) == 2
    said = capsys.readouterr().err
    assert "cfctl open is not done through a relay" in said
    assert "whatever becomes of the token that asked for it" in said
    assert "enter your token" in said


def test_nobody_who_cannot_be_asked_is_asked_and_what_mends_it_is_whole(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that nobody has compared: the command that keeps it has all that was given."""
    monkeypatch.setattr("sys.stdin", io.StringIO("secret"))
    with serving(own(home)) as server:
        fingerprint = pinned(server).fingerprint
        assert run(["context", "add", "lab", server.address, "--token-file", "-"]) == 1
    said = capsys.readouterr().err
    assert f"cfctl context add lab {server.address} --fingerprint {fingerprint} --token-file -" in said
    assert said.count(fingerprint) == 2


def test_what_does_not_speak_tls_is_said_to_be_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("secret"))

    def hang_up(server: socket.socket) -> None:
        with server.accept()[0] as client:
            client.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=(server,)).start()
        assert run(["context", "add", "lab", f"127.0.0.1:{server.getsockname()[1]}", "--token-file", "-"]) == 1
    said = capsys.readouterr().err
    assert "does not speak TLS" in said
    assert "None" not in said


def test_the_address_of_the_page_is_not_the_relay_s(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("secret"))
    made = own(home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    def answer(server: socket.socket) -> None:
        with (
            server.accept()[0] as client,
            contextlib.suppress(OSError),
            context.wrap_socket(client, server_side=True) as tls,
        ):
            tls.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,)).start()
        assert run(["context", "add", "lab", f"127.0.0.1:{server.getsockname()[1]}", "--token-file", "-"]) == 1
    assert "the relay's page, perhaps" in capsys.readouterr().err


@pytest.mark.usefixtures("known")
def test_a_screen_is_looked_at_by_the_relay_s_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--relay", "lab", "screen", "phone", "--stats"]) == 2
    said = capsys.readouterr().err
    assert "export CFCTL_SCREEN_TOKEN=" in said
    assert "cfctl --relay local screen NAME --png now.png --operator https://HOST:PORT" in said


@pytest.mark.usefixtures("known")
def test_a_context_in_use_is_for_devices_and_no_verb_mistakes_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    contexts.use("lab")
    # A device verb without a twin: the device of that name here is not the one that is meant.
    assert run(["rm", "phone"]) == 2
    assert "The context lab is in use." in capsys.readouterr().err
    assert run(["--relay", "local", "rm", "no-such-phone"]) == 1
    assert "there is no device 'no-such-phone'" in capsys.readouterr().err
    # Groups are about this machine.
    assert run(["images", "list"]) == 0
    assert run(["context", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["*", "lab"]


@pytest.mark.usefixtures("known")
def test_a_context_to_remove_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, made in (("remove", False), ("use", True)):
        assert run(["context", verb, "nosuch", "--json"]) == 1
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["details"] == "Contexts: lab."
        assert ("context add" in error["resolution"]) is made
        assert "cfctl context list" in error["resolution"]


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["--x_res", "700", "--dpi=160"], ["--x_res=700", "--dpi=160"]),
        (["--console", "--y_res", "9"], ["--console", "--y_res=9"]),
        # What is nobody's value is the relay's to refuse.
        (["--dpi=160", "7"], ["--dpi=160", "7"]),
    ],
)
def test_both_forms_of_flags(words: list[str], flags: list[str]) -> None:
    assert remote_device._joined(words) == flags


def test_every_twin_takes_what_its_verb_takes() -> None:
    """The same arguments, by name: what a verb learns, its twin must too."""
    import importlib
    import inspect

    from cfctl.cli import access, control, device, display, lifecycle, ps

    twins = {
        "remote_device": (ps.ps, device.status, device.stop, device.restart, device.launch),
        "remote_access": (access.logs, access.adb, control.console),
        "remote_control": (
            control.control,
            display.display,
            lifecycle.suspend,
            lifecycle.resume,
            lifecycle.powerbtn,
        ),
    }
    for module, verbs in twins.items():
        found = importlib.import_module(f"cfctl.cli.{module}")
        for verb in verbs:
            twin = getattr(found, verb.__name__)
            assert list(inspect.signature(twin).parameters) == list(inspect.signature(verb).parameters), verb.__name__
    assert app.info.name == "cfctl"


def test_contexts_as_json(known: Context, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["context", "use", "lab", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    conforms(document, "contexts")
    assert document["current"] == "lab"
    assert document["contexts"][0]["address"] == known.address
    assert run(["context", "remove", "lab", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"current": None, "contexts": []}
    assert run(["context", "use", "lab", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "no-such-context"


def test_a_relay_that_does_not_answer_is_not_kept(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert run(["context", "add", "lab", f"unix:{home}/none"]) == 1
    assert "no relay answers" in capsys.readouterr().err
    assert contexts.load().contexts == ()


def test_the_choice_costs_a_local_verb_nothing() -> None:
    """Neither gRPC nor the contexts are loaded for a verb that is done here."""
    code = "import sys\nfrom cfctl.cli.app import run\nrun(['ps'])\nprint(*sys.modules, file=sys.stderr)"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "CFCTL_PATHS_CONFIG": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=env
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert loaded.isdisjoint({"grpc", "google.protobuf", "cfctl.remote.contexts"})


@pytest.mark.parametrize(
    ("argv", "right"),
    [
        (["ps", "--relay", "lab"], "cfctl --relay lab ps"),
        (["stop", "a phone", "--relay=lab", "--timeout", "9"], "cfctl --relay=lab stop 'a phone' --timeout 9"),
        (["ps", "--json", "--relay"], "cfctl --relay CONTEXT ps --json"),
    ],
)
def test_a_relay_that_is_named_after_the_verb(
    argv: list[str], right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where most programs take all their options: it is said where it stands."""
    assert run(argv) == 2
    said = "".join(capsys.readouterr())
    assert "--relay stands before the verb" in said
    assert f"Write it so: {right}" in said


def test_what_helps_is_typed_here_as_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere.name("lab")
    try:
        both = "Boot it: cfctl restart phone\nOn the relay's host: cfctl launch phone\nSee cfctl psx, cfctl rm phone"
        common.show_error(NotRunning("phone is stopped", None, both), json_=False)
        assert capsys.readouterr().err.splitlines()[1:] == [
            "  Boot it: cfctl --relay lab restart phone",
            "  On the relay's host: cfctl launch phone",
            "  See cfctl psx, cfctl rm phone",
        ]
        common.show_error(NotRunning("phone is stopped", None, "cfctl restart phone"), json_=True)
        assert json.loads(capsys.readouterr().out)["error"]["resolution"] == "cfctl restart phone"
        elsewhere.name("local")
        common.show_error(NotRunning("phone is stopped", None, "cfctl restart phone"), json_=False)
        assert capsys.readouterr().err.splitlines()[1:] == ["  cfctl restart phone"]
    finally:
        elsewhere.name(None)


def test_tab_offers_the_devices_behind_the_relay(home: Path, tmp_path: Path) -> None:
    """Those of this machine with the same verb would be others; and nobody's Tab waits for a relay that is gone."""

    def offered(words: str) -> list[str]:
        tab = {"_CFCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        argv = [sys.executable, "-m", "cfctl"]
        done = subprocess.run(
            argv, env={**os.environ, "PYTHONPATH": str(REPO), **tab}, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.split()

    with serving(own(tmp_path)) as server:
        contexts.add(pinned(server))
        assert offered("cfctl stop ") == []
        assert offered("cfctl --relay lab stop ") == ["phone"]
        contexts.use("lab")
        assert offered("cfctl logs ") == ["phone"]
        assert offered("cfctl --relay local logs ") == []
        assert offered("cfctl clean ") == []
    assert offered("cfctl logs ") == []
    assert offered("cfctl --relay nosuch logs ") == []
    (home / "config/contexts.json").write_text("{")
    assert offered("cfctl logs ") == []
