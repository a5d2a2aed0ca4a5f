"""The command line as such: exit statuses, errors for programs and people, help, colours."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from cfctl import errors, process
from cfctl.artifacts import store
from cfctl.cli import app, common
from cfctl.cli.common import Answer
from cfctl.errors import CfctlError
from tests.artifacts import archives
from tests.schemas import conforms

REPO = Path(__file__).resolve().parents[2]


def cfctl(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``cfctl`` as a program."""
    return subprocess.run(
        [sys.executable, "-m", "cfctl", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "HOME": "/root", "LC_ALL": "C.UTF-8", **env},
    )


def on_a_terminal(*args: str, **env: str) -> str:
    """Run ``cfctl`` on a terminal of its own and return all that was written there."""
    main, side = pty.openpty()
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "TERM": "xterm", "HOME": "/root", **env}
    with subprocess.Popen(
        [sys.executable, "-m", "cfctl", *args], stdin=side, stdout=side, stderr=side, env=environ
    ) as child:
        os.close(side)
        output = b""
        while True:
            try:
                output += os.read(main, 65536)
            except OSError:
                # EIO: the last one who had the terminal open is gone.
                break
        child.wait(60)
    os.close(main)
    return output.decode(errors="replace")


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Return every verb with its full name."""

    def walk(prefix: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield from walk(f"{prefix} {name}", inner)
        else:
            yield prefix.strip(), command

    return walk("", typer.main.get_command(app.app))


VERBS = dict(verbs())

#: What is shown for people and programs alike has no document.
INTERACTIVE = {"adb", "console"}


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """Give a command line of its own to put verbs into."""
    own = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    own.callback()(lambda: None)
    monkeypatch.setattr(app, "app", own)
    return own


# -- help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_examples(name: str) -> None:
    text = VERBS[name].help or ""
    assert "Example" in text, f"cfctl {name} --help shows no example"
    assert f"cfctl {name}" in text


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_the_common_options(name: str) -> None:
    options = {option for parameter in VERBS[name].params for option in parameter.opts}
    assert {"--json", "--quiet", "--verbose"} <= options


@pytest.mark.parametrize("name", VERBS)
def test_every_option_says_what_it_is_for(name: str) -> None:
    for parameter in VERBS[name].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"cfctl {name} {parameter.opts[0]}"


@pytest.mark.parametrize("name", VERBS)
def test_help_comes_out(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([*name.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: ")


def test_no_arguments_show_the_help() -> None:
    done = cfctl()
    assert "Usage: " in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_version() -> None:
    done = cfctl("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cfctl ")


def test_completion() -> None:
    command = Path(sys.prefix) / "bin" / "cfctl"
    # What the script that `--show-completion` prints runs at every press of the Tab key.
    env = {"_CFCTL_COMPLETE": "complete_bash", "COMP_WORDS": "cfctl gpu pr", "COMP_CWORD": "2"}
    done = process.run([command], timeout=30, success=None, env={"PATH": os.environ["PATH"], **env})
    assert done.stdout.split() == ["probe"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("cfctl launch --host-package ", ["nightly", "file.txt", "place/"]),
        ("cfctl launch --images ni", ["nightly-images"]),
        ("cfctl gpu probe --images ", ["nightly-images", "file.txt", "place/"]),
        ("cfctl host doctor --host-package n", ["nightly"]),
        # Of files the shell knows more than we do.
        ("cfctl launch --host-package x", []),
        ("cfctl launch --host-package ./", []),
    ],
)
def test_completion_of_what_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, offered: list[str]
) -> None:
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(tmp_path / "cache"))
    store.add(archives.package(tmp_path / "cvd-host_package.tar.gz"), name="nightly")
    store.add(archives.images(tmp_path / "img.zip"), name="nightly-images")
    (here := tmp_path / "here").mkdir()
    (here / "place").mkdir()
    (here / "file.txt").touch()
    tab = {"_CFCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = process.run(
        [Path(sys.prefix) / "bin" / "cfctl"],
        timeout=30,
        success=None,
        cwd=here,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPO),
            **tab,
            "CFCTL_PATHS_CACHE": str(tmp_path / "cache"),
        },
    )
    assert done.stdout.split() == offered


@pytest.mark.parametrize(
    "group",
    [*([], ["gpu"], ["guest"], ["host"], ["images"]), *(["relay"], ["relay", "token"], ["context"])],
)
def test_no_summary_is_cut_off(group: list[str]) -> None:
    listed = cfctl(*group, "--help").stdout.partition("Commands:")[2]
    assert listed
    assert [line for line in listed.splitlines() if line.endswith("...")] == []


# -- wrong calls -------------------------------------------------------------------------------------------


def test_a_deadline_without_a_pod() -> None:
    done = cfctl("host", "run", "--deadline", "3", CFCTL_PATHS_RUNTIME="/nonexistent")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--deadline goes with --pod" in done.stderr


def test_a_verb_that_is_nearly_one() -> None:
    assert cfctl("lauch").stderr.count("Did you mean 'launch'?") == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--cpus", "x"], "whole number"),
        (["--no-wait", "--timeout", "5"], "contradict"),
        (["--foreground"], "--events ends with the boot"),
    ],
)
def test_a_wrong_launch_is_an_event(args: list[str], said: str) -> None:
    done = cfctl("launch", "--events", "--host-package", "/nonexistent", *args)
    assert done.returncode == 2, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    conforms(last, "event")
    assert last["event"] == "error"
    assert said in last["error"]["brief"]


@pytest.mark.parametrize(
    "args", [["nonsense"], ["gpu", "nonsense"], ["gpu", "probe", "--nonsense"], ["gpu", "probe", "x"]]
)
def test_a_wrong_call(args: list[str]) -> None:
    done = cfctl(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


def test_a_wrong_call_with_json() -> None:
    done = cfctl("gpu", "probe", "--json", "--nonsense")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    conforms(document, "error")
    assert document["error"]["code"] == "usage"
    assert "--nonsense" in document["error"]["brief"]


# -- what a verb ends with ---------------------------------------------------------------------------------

ERRORS = [
    (CfctlError("it failed"), 1),
    (errors.UsageError("wrong"), 2),
    (errors.NotRunning("not up"), 3),
    (errors.HostLacks("no package", None, "install it"), 4),
    (errors.MissingCommand("nft", "apt-get install nftables"), 4),
    (errors.DeadlinePassed("too slow"), 5),
    (errors.CommandFailed(["ip"], 1, "bad"), 1),
]


@pytest.mark.parametrize(("error", "status"), ERRORS, ids=lambda value: getattr(value, "code", None))
def test_exit_statuses(verb: typer.Typer, capsys: pytest.CaptureFixture[str], error: CfctlError, status: int) -> None:
    @common.verb(verb, "fail")
    def fail() -> Answer:
        raise error

    assert app.run(["fail"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"Error: {error.brief}\n")
    for part in (error.details, error.resolution):
        assert part is None or f"  {part}" in err

    assert app.run(["fail", "--json"]) == status
    out, err = capsys.readouterr()
    document = json.loads(out)
    conforms(document, "error")
    assert document == {"error": error.as_dict()}
    assert err == ""


def test_an_answer(verb: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    @common.verb(verb, "differ")
    def differ() -> Answer:
        return Answer({"state": "drift"}, lambda: print("it differs"), exit_code=3)

    assert app.run(["differ"]) == 3
    assert capsys.readouterr().out == "it differs\n"
    assert app.run(["differ", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == {"state": "drift"}


def test_interrupted(verb: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    @common.verb(verb, "wait")
    def wait() -> Answer:
        raise KeyboardInterrupt

    assert app.run(["wait"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_bug_is_not_hidden(verb: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    @common.verb(verb, "bug")
    def bug() -> Answer:
        raise ZeroDivisionError("oops")

    assert app.run(["bug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "cfctl itself failed: ZeroDivisionError: oops" in err

    assert app.run(["bug", "--json"]) == 1
    out, err = capsys.readouterr()
    conforms(json.loads(out), "error")
    assert "Traceback" in err


def test_verbose_shows_commands(verb: typer.Typer) -> None:
    code = (
        "import sys\nfrom cfctl import process\nfrom cfctl.cli import app, common\n"
        "@common.verb(app.app, 'run')\n"
        "def run():\n    process.run(['echo', 'two words'], timeout=5)\n"
        "sys.exit(app.run(['run', *sys.argv[1:]]))\n"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
    loud = process.run([sys.executable, "-c", code, "--verbose"], timeout=30, env=env)
    assert "/echo 'two words'" in loud.stderr
    assert process.run([sys.executable, "-c", code], timeout=30, env=env).stderr == ""


@pytest.mark.parametrize(
    ("called", "at_hand", "said"),
    [
        ("cfctl", True, "sudo cfctl host setup"),
        ("/opt/farm/.venv/bin/cfctl", False, "sudo /opt/farm/.venv/bin/cfctl host setup"),
        ("/opt/farm/cfctl/__main__.py", False, f"sudo {sys.executable} -m cfctl host setup"),
    ],
)
def test_sudo_finds_the_cfctl_that_was_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, called: str, at_hand: bool, said: str
) -> None:
    program = tmp_path / "cfctl"
    program.touch(0o755)
    monkeypatch.setattr(common, "_SUDO_PATH", str(tmp_path if at_hand else tmp_path / "nothing"))
    monkeypatch.setattr(sys, "argv", [called])
    assert common.as_typed("sudo cfctl host setup") == said
    assert common.as_typed("cfctl ps") == "cfctl ps"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["images", "list"], "the answer could not be written: No space left on device"),
        (["images", "list", "--json"], "the answer could not be written: No space left on device"),
        (["status", "nosuch", "--json"], "there is no device 'nosuch'"),
    ],
)
def test_what_finds_no_room_is_said_all_the_same(words: list[str], said: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cfctl", *words],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough() -> None:
    code = "set -o pipefail; %s -m cfctl gpu probe -q | true; %s -m cfctl gpu probe -q --json | true"
    done = subprocess.run(
        ["bash", "-e", "-c", code.replace("%s", sys.executable)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- colours -----------------------------------------------------------------------------------------------


def test_colours_on_a_terminal() -> None:
    assert "\x1b[" in on_a_terminal("gpu", "probe")
    assert "\x1b[31mError:" in on_a_terminal("gpu", "probe", "--gpu", "nonsense")


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours(env: dict[str, str]) -> None:
    assert "\x1b[" not in on_a_terminal("gpu", "probe", **env)
    assert "\x1b[" not in on_a_terminal("gpu", "probe", "--gpu", "nonsense", **env)


def test_no_colours_in_a_pipe() -> None:
    done = cfctl("gpu", "probe", TERM="xterm")
    assert "\x1b[" not in done.stdout + done.stderr


def test_quiet() -> None:
    assert cfctl("gpu", "probe").stderr.startswith("ok ")
    assert cfctl("gpu", "probe", "--quiet").stderr == ""


# -- interrupted before it has begun -----------------------------------------------------------------------


def test_ctrl_c_while_the_modules_are_loaded() -> None:
    code = (
        "import sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'cfctl.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "from cfctl.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=REPO
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")
