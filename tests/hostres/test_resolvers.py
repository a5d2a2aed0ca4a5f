"""The host's DNS servers: which file, and which of them a guest can ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import config
from cfctl.errors import HostLacks
from cfctl.hostres import host, resolvers

#: As systemd-resolved writes it (shortened).
STUB = "# This is a stub\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n"


def found(tmp_path: Path, *texts: str | None) -> resolvers.Resolvers:
    files = []
    for number, text in enumerate(texts):
        files.append(tmp_path / f"file{number}")
        if text is not None:
            files[-1].write_text(text)
    return resolvers.of_host(files)


def test_a_plain_file(tmp_path: Path) -> None:
    text = (
        "domain lan\nnameserver 10.0.0.1\n nameserver\t10.0.0.2 # second\nnameserver fd00::1\nnameserver 10.0.0.1\n"
    )
    got = found(tmp_path, text, "nameserver 10.9.9.9\n")
    assert (got.ipv4, got.ipv6) == (("10.0.0.1", "10.0.0.2"), ("fd00::1",))
    assert got.origin == f"{tmp_path}/file0"


def test_behind_a_server_on_loopback(tmp_path: Path) -> None:
    got = found(tmp_path, STUB, None, "nameserver 10.0.0.1\n")
    assert (got.ipv4, got.ipv6, got.origin) == (("10.0.0.1",), (), f"{tmp_path}/file2")


@pytest.mark.parametrize(
    "server", ["127.0.0.53", "127.0.0.11", "::1", "fe80::1", "fe80::1%eth0", "0.0.0.0", "ff02::1"]
)
def test_what_a_guest_cannot_ask(tmp_path: Path, server: str) -> None:
    got = found(tmp_path, f"nameserver {server}\n")
    assert (got.ipv4, got.ipv6) == ((), ())
    assert got.seen == f"{tmp_path}/file0 ({server})"


def test_nothing_at_all(tmp_path: Path) -> None:
    assert found(tmp_path, None).seen == "no file at all"
    assert found(tmp_path, "search lan\n").seen == f"{tmp_path}/file0 (no nameserver)"


@given(st.text())
def test_any_file_is_read(text: str) -> None:
    for server in resolvers.parse(text):
        assert server
        assert " " not in server


def _settings(**values: str) -> config.Settings:
    environ = {f"CFCTL_HOST_{name.upper()}": value for name, value in values.items()}
    return config.load(environ={"CFCTL_HOST_DNS": "host", **environ}, upstream_file=Path("/none"))


def test_the_settings_say_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    there = resolvers.Resolvers(("10.0.0.1",), (), "/etc/resolv.conf", "")
    monkeypatch.setattr(resolvers, "of_host", lambda: there)
    settings = host._with_resolvers(_settings(dns6_servers="fd00::7"))
    assert settings.values["host.dns_servers"] == config.Value(("10.0.0.1",), "/etc/resolv.conf")
    assert settings["host.dns6_servers"] == ()
    assert _settings(dns="servers") == host._with_resolvers(_settings(dns="servers"))


def test_no_server_that_guests_could_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    there = resolvers.Resolvers((), ("fd00::1",), "/x", "/x (fd00::1)")
    monkeypatch.setattr(resolvers, "of_host", lambda: there)
    with pytest.raises(HostLacks) as caught:
        host._with_resolvers(_settings())
    assert str(caught.value) == (
        "the host has no DNS server that guests could ask\n"
        "host.dns = host (CFCTL_HOST_DNS), and no IPv4 address is left of: /x (fd00::1).\n"
        "Name the servers: host.dns = servers, and host.dns_servers = those of your network"
    )
    # Nobody is told anything here.
    host._with_resolvers(_settings(instances="0"))
    host._with_resolvers(_settings(bridge="br0"))
