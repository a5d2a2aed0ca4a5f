"""The files of settings that the packages bring: what is a comment in them can be used, or is so anyway."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from cfctl import config
from tests.packaging import built

PACKAGING = built.REPO / "packaging"


def test_upstreams_file_has_each_setting_as_it_is_built_in(tmp_path: Path) -> None:
    text = (PACKAGING / "etc/cuttlefish-host-resources.default").read_text()
    assert [line for line in text.splitlines() if not line.startswith("#")] == []
    offered = re.findall(r"^#(\w+=.*)$", text, re.MULTILINE)
    known = {key.upstream for key in config.KEYS.values() if key.upstream}
    assert {line.partition("=")[0] for line in offered} == known
    said = [line for line in offered if not line.endswith("=")]
    file = tmp_path / "default"
    file.write_text("\n".join(said))
    (tmp_path / "config.toml").touch()
    settings = config.load(upstream_file=file, config_file=tmp_path / "config.toml", environ={})
    for key in config.KEYS.values():
        assert settings[key.name] == key.default
    assert sum(value.origin.startswith(str(file)) for value in settings.values.values()) == len(said) == 5


def test_what_the_sample_offers_can_be_said(tmp_path: Path) -> None:
    text = (PACKAGING / "etc/config.toml").read_text()
    assert [line for line in text.splitlines() if not line.startswith("#")] == []
    offered = re.findall(r"^# (\[\w+\]|\w+ = .*)$", text, re.MULTILINE)
    file = tmp_path / "config.toml"
    file.write_text("\n".join(offered))
    settings = config.load(upstream_file=tmp_path / "none", config_file=file, environ={})
    for name in ("host.instances", "relay.turn_ports"):
        assert settings[name] == config.KEYS[name].default
    said = {name for name, value in settings.values.items() if value.origin.startswith(str(file))}
    assert said == {"host.instances", *(f"relay.{name}" for name in ("grpc", "web", "turn", "turn_ports", "metrics"))}
    # Each service of firewalld that a line names opens the port of that line.
    ports = {
        file.stem: {(port.get("protocol"), port.get("port")) for port in ElementTree.parse(file).iter("port")}
        for file in (PACKAGING / "firewalld").iterdir()
    }
    named = dict(re.findall(r'^# \w+ = "[^"]+:(\d+)" +# ([a-z-]+):', text, re.MULTILINE))
    assert set(named.values()) == ports.keys()
    for port, service in named.items():
        assert ("tcp", port) in ports[service], service
    first, last = settings["relay.turn_ports"].split(":")
    assert ports["cfctl-relay-turn"] == {("tcp", "3478"), ("udp", "3478"), ("udp", f"{first}-{last}")}
