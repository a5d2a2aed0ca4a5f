"""The command that people are told to type sets up what they have looked at."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from cfctl import config
from cfctl.config import KEYS
from cfctl.hostres import commands

NOWHERE = Path("/nonexistent/file")


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str = "", **kwargs: Any) -> config.Settings:
    monkeypatch.setenv("CFCTL_PATHS_CONFIG", str(tmp_path))
    if toml:
        (tmp_path / "config.toml").write_text(f"[host]\n{toml}")
    return config.load(**{"environ": {}, "upstream_file": NOWHERE, **kwargs})


@pytest.mark.parametrize(
    ("environ", "flags", "command"),
    [
        ({}, {}, "sudo cfctl host setup"),
        ({}, {"host.instances": 4, "host.lazy": None}, "sudo cfctl host setup --instances 4"),
        ({}, {"host.bridge": "", "host.lazy": False}, "sudo cfctl host setup --no-lazy --bridge ''"),
        ({}, {"host.bridge": "br0", "host.lazy": True}, "sudo cfctl host setup --lazy --bridge br0"),
        (
            {"CFCTL_HOST_DNS_SERVERS": "1.1.1.1,9.9.9.9", "CFCTL_HOST_GUEST_ISOLATION": "no"},
            {},
            "sudo CFCTL_HOST_DNS_SERVERS=1.1.1.1,9.9.9.9 CFCTL_HOST_GUEST_ISOLATION=false cfctl host setup",
        ),
        ({"CFCTL_HOST_NUMBERS": "4,3"}, {}, "sudo CFCTL_HOST_NUMBERS=3,4 cfctl host setup"),
        ({"CFCTL_HOST_DNS_SERVERS": ""}, {}, "sudo CFCTL_HOST_DNS_SERVERS='' cfctl host setup"),
        # Not a setting of the host.
        ({"CFCTL_LAUNCH_TIMEOUT": "7"}, {}, "sudo cfctl host setup"),
    ],
)
def test_flags_and_variables(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    flags: dict[str, object],
    command: str,
) -> None:
    assert commands.set_up(load(tmp_path, monkeypatch, environ=environ, flags=flags)) == command


def test_another_file_than_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = load(tmp_path, monkeypatch, "instances = 2\nlazy = true\n")
    assert commands.set_up(users) == f"sudo cfctl host setup --config {tmp_path}/config.toml"
    named = tmp_path / "my own.toml"
    named.write_text("[host]\ninstances = 3\n")
    monkeypatch.chdir(tmp_path)
    given = load(tmp_path, monkeypatch, config_file=Path("my own.toml"))
    assert commands.set_up(given, "--force") == f"sudo cfctl host setup --config '{named}' --force"


def test_what_root_reads_itself_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {name: config.Value(key.default, "/etc/cfctl/config.toml") for name, key in KEYS.items()}
    values["host.instances"] = config.Value(2, "/etc/default/cuttlefish-host-resources:7")
    assert commands.set_up(config.Settings(values)) == "sudo cfctl host setup"


def test_the_command_is_read_back_as_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"CFCTL_HOST_WIFI_IPV6_PREFIX": "fd00:96::", "CFCTL_HOST_BRIDGE": "br0", "CFCTL_HOST_IPV4_BRIDGE": "0"}
    first = load(tmp_path, monkeypatch, environ=given)
    words = shlex.split(commands.set_up(first))
    environ = dict(word.split("=", 1) for word in words[1:-3])
    again = load(tmp_path, monkeypatch, environ=environ)
    assert again.values == first.values
