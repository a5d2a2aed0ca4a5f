"""The scope's command. That systemd takes it can only be seen where systemd runs, which is not where tests run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cfctl import process
from cfctl.launch import scope
from tests.launch.devices import record


def test_the_command() -> None:
    found = scope.wrapped(
        ["/opt/cf/bin/launch_cvd", "--daemon=true"],
        record("my-phone", (1, 2), started_at="2026-01-02T03:04:05.678Z", memory_mb=2048, cpus=(2, 4)),
        root=True,
    )
    assert found == [
        "systemd-run",
        "--scope",
        "--quiet",
        "--collect",
        r"--unit=cfctl-device-my\x2dphone-20260102030405678.scope",
        "--description=cfctl device my-phone",
        "--property=TasksMax=infinity",
        f"--property=MemoryMax={(2 * 2048 + 2 * 1024) << 20}",
        "--property=CPUQuota=1000%",
        "--",
        "/opt/cf/bin/launch_cvd",
        "--daemon=true",
    ]
    assert "--user" in scope.wrapped(["x"], record(), root=False)


def test_no_limit_where_the_need_is_not_known() -> None:
    assert scope.limits(record().request) == ["TasksMax=infinity"]


def test_available_where_systemd_is_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find", lambda name: Path("/usr/bin") / name)
    monkeypatch.setattr(scope, "_BOOTED", tmp_path / "system")
    assert not scope.available({})
    (tmp_path / "system").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert scope.available({})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not scope.available({}), "nobody logged in, no manager"
    (tmp_path / "systemd/private").mkdir(parents=True)
    assert scope.available({"XDG_RUNTIME_DIR": str(tmp_path)})
    monkeypatch.setattr(process, "find", lambda name: None)
    assert not scope.available({"XDG_RUNTIME_DIR": str(tmp_path)})
