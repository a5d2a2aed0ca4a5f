"""Who may open the devices, and what is said to those who may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cfctl.gpu import groups


@pytest.mark.parametrize(
    ("path", "group", "mode", "member", "listed", "help_"),
    [
        ("/dev/kvm", "kvm", 0o660, False, False, "sudo usermod -aG kvm $USER"),
        ("/dev/dri/renderD128", "render", 0o660, False, False, "sudo usermod -aG render $USER"),
        ("/dev/dri/renderD128", "render", 0o660, False, True, "Log in again"),
        ("/dev/dri/renderD128", "105", 0o660, False, False, "--group-add 105"),
        ("/dev/dri/renderD128", "root", 0o660, False, False, "sudo chgrp render /dev/dri/renderD128"),
        ("/dev/kvm", "root", 0o600, False, False, "sudo chgrp kvm /dev/kvm"),
        ("/dev/kvm", "kvm", 0o600, False, False, "sudo chmod 0660 /dev/kvm"),
    ],
)
def test_advice(path: str, group: str, mode: int, *, member: bool, listed: bool, help_: str) -> None:
    assert help_ in groups.opening(path, group, mode, member=member, listed=listed)


def test_devices_that_are_there(tmp_path: Path) -> None:
    for name in ("kvm", "dri/renderD129", "dri/renderD128", "dri/card0", "nvidiactl", "nvidia0", "null"):
        (tmp_path / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev" / name).touch()
    found = groups.read(tmp_path)
    assert [access.path for access in found] == [
        "/dev/kvm",
        "/dev/dri/renderD128",
        "/dev/dri/renderD129",
        "/dev/nvidiactl",
        "/dev/nvidia0",
    ]
    assert all(access.usable and access.member and access.help is None for access in found)


def test_a_device_that_vanishes_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").symlink_to("gone")
    assert groups.read(tmp_path) == ()


def test_a_group_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch()
    if os.geteuid() == 0:
        os.chown(tmp_path / "dev/kvm", 0, 54321)
        assert groups.read(tmp_path)[0].group == "54321"
