"""The systemd units: systemd's own check, and that they run verbs that exist, and end them as promised."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from cfctl.cli.app import app

REPO = Path(__file__).resolve().parents[2]
UNITS = sorted((REPO / "packaging" / "systemd").iterdir())
PROGRAM = "/usr/bin/cfctl"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(REPO / "packaging" / "systemd" / name)
    return parser


def commands() -> list[tuple[str, str]]:
    return [
        (file.name, line.partition("=")[2])
        for file in UNITS
        for line in file.read_text().splitlines()
        if line.startswith("Exec") and PROGRAM in line
    ]


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    assert verify, "systemd-analyze is missing: make setup"
    # Beside each other, with a program that is there: it looks at both.
    program = tmp_path / "cfctl"
    program.symlink_to(sys.executable)
    for file in UNITS:
        (tmp_path / file.name).write_text(file.read_text().replace(PROGRAM, str(program)))
    done = subprocess.run(
        [verify, "verify", *(tmp_path / file.name for file in UNITS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    # Units of the machine that it looks at beside ours may have faults of their own.
    said = [line for line in done.stderr.splitlines() if "cfctl" in line]
    assert said == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "command"), commands())
def test_verbs_exist(name: str, command: str) -> None:
    program, *words = command.split()
    assert program == PROGRAM, name
    found = typer.main.get_command(app)
    for word in words:
        if word.startswith("-"):
            assert any(word in option.opts for option in found.params), word
        elif word != "%i":
            found = found.commands[word]  # type: ignore[attr-defined]


def test_stopping_never_cuts_devices_off() -> None:
    assert len(commands()) == 6
    assert "--force" not in "".join(command for _, command in commands())
    setup, run = unit("cfctl-host-resources.service"), unit("cfctl-host-run.service")
    # The DHCP servers run in the units' control groups.
    assert setup["Service"]["KillMode"] == run["Service"]["KillMode"] == "process"
    assert "ExecStop" not in run["Service"]
    assert not {"PartOf", "BindsTo", "Requires", "Conflicts"} & {*setup["Unit"], *run["Unit"]}


def test_the_socket_is_the_services() -> None:
    socket = unit("cfctl-taps.socket")["Socket"]
    assert socket["ListenSequentialPacket"] == "/run/cfctl/taps.sock"
    assert (socket["SocketUser"], socket["SocketGroup"], socket["SocketMode"]) == ("root", "cvdnetwork", "0660")
    assert socket["Service"] == "cfctl-host-run.service"
    assert unit("cfctl-host-run.service")["Service"]["Sockets"] == "cfctl-taps.socket"


def test_devices_in_units_may_open_as_many_files_as_those_of_people() -> None:
    """PAM's limits are not read for services (limits.conf(5)); the relay raises its own to the hard one."""
    limits = (REPO / "packaging/limits/10-cfctl.conf").read_text().splitlines()[-1].split()
    for name in ("cfctl-relay.service", "cfctl-device@.service"):
        soft, hard = unit(name)["Service"]["LimitNOFILE"].split(":")
        assert int(soft) == int(limits[-1])
        # systemd's own: crosvm raises it (system.conf(5), DefaultLimitNOFILE).
        assert int(hard) == 524288
        assert unit(name)["Service"]["TasksMax"] == "infinity"
