from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.launch import boot_times
from cfctl.launch.registry import Request


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(tmp_path / "cache"))
    return Request(host_package=str(tmp_path / "package"))


def test_nobody_knows_at_first(request_: Request) -> None:
    assert boot_times.typical(request_) == {}


def test_the_median_of_the_last_boots(request_: Request) -> None:
    for seconds in (100.0, 1.0, 2.0, 3.0):
        boot_times.remember(request_, {"vm": seconds})
    assert boot_times.typical(request_) == {"vm": 2.5}
    for _ in range(9):
        boot_times.remember(request_, {"vm": 7.0, "kernel": 0.5})
    assert boot_times.typical(request_) == {"vm": 7.0, "kernel": 0.5}
    other = Request(host_package=request_.host_package, images="/elsewhere")
    assert boot_times.typical(other) == {}, "other images boot otherwise"


def test_what_a_package_brings_counts_until_this_host_knows(request_: Request) -> None:
    file = Path(request_.host_package) / boot_times.BROUGHT
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"vm": 0.5, "kernel": 1, "no phase": 3, "adb": "x", "booted": -1}))
    assert boot_times.typical(request_) == {"vm": 0.5, "kernel": 1.0}
    boot_times.remember(request_, {"vm": 9.0})
    assert boot_times.typical(request_) == {"vm": 9.0, "kernel": 1.0}


def test_a_cache_that_cannot_be_written_is_no_failure(request_: Request, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    boot_times.remember(request_, {"vm": 1.0})
    assert boot_times.typical(request_) == {}


@given(raw=st.binary(max_size=80) | st.sampled_from([b'{"boots":[3]}', b'{"boots":{}}', b'{"boots":[{"vm":1e999}]}']))
def test_any_file_is_a_result(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CFCTL_PATHS_CACHE", str(directory))
        request = Request(host_package="/x")
        boot_times.remember(request, {})
        (file,) = directory.rglob("*.json")
        file.write_bytes(raw)
        assert all(seconds >= 0 for seconds in boot_times.typical(request).values())
