"""`cfctl control` and `cfctl console` as people meet them, without a VM of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cfctl import process
from cfctl.instance import Instance
from cfctl.launch import procs
from tests import crosvm
from tests.cli.test_app import cfctl, on_a_terminal
from tests.schemas import conforms


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    """Give an environment with no devices."""
    return {f"CFCTL_PATHS_{name}": str(tmp_path / name) for name in ("STATE", "CACHE", "RUNTIME", "CONFIG")}


def test_a_device_that_there_is_not(state: dict[str, str]) -> None:
    for verb in (["control", "phone"], ["control", "phone", "vcpus"]):
        done = cfctl(*verb, "--json", **state)
        assert json.loads(done.stdout)["error"]["code"] == "no-such-device"
        assert done.returncode == 1


def test_what_makes_no_sense_needs_no_device(state: dict[str, str]) -> None:
    done = cfctl("control", "phone", "balloon", "set", **state)
    assert (done.returncode, "balloon set needs bytes" in done.stderr) == (2, True)
    done = cfctl("control", "phone", "balloon", **state)
    assert (done.returncode, "balloon set BYTES [wait]" in done.stderr) == (2, True)


def test_console_wants_a_terminal(state: dict[str, str]) -> None:
    done = cfctl("console", "phone", **state)
    assert (done.returncode, "cfctl adb phone shell COMMAND" in done.stderr) == (2, True)
    assert "there is no device 'phone'" in on_a_terminal("console", "phone", **state)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("cfctl control phone ", "balloon"),
        ("cfctl control phone balloon ", "working-set"),
        ("cfctl control phone battery status ", "discharging"),
    ],
)
def test_completion(words: str, offered: str, state: dict[str, str]) -> None:
    count = str(len(words.split()))
    done = cfctl(_CFCTL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=count, **state)
    assert offered in done.stdout.split(), done.stderr
    assert "suspend" not in done.stdout.split()


@pytest.fixture
def device(tmp_path: Path, state: dict[str, str]) -> dict[str, str]:
    """Give an environment with a device of which the launcher wrote what the VM is."""
    sockets = tmp_path / "avd"
    home = tmp_path / "STATE" / "devices" / "phone"
    home.mkdir(parents=True)
    record = {
        "name": "phone",
        "owner": "me",
        "created_at": "2026-01-01T00:00:00.000Z",
        "request": {"host_package": str(tmp_path)},
        "numbers": [1],
        "gpu_mode": "none",
        "gpu_reason": "",
        "booted_at": "2026-01-01T00:00:00.000Z",
    }
    (home / "device.json").write_text(json.dumps(record))
    config = {
        "root_dir": str(home),
        "instances_uds_dir": str(sockets),
        "vm_manager": "crosvm",
        "instances": {"1": {}},
    }
    (home / ".cuttlefish_config.json").write_text(json.dumps(config))
    return {**state, procs.MARK: str(home), procs.INSTANCE: "1"}


def test_a_vm_of_crosvms(tmp_path: Path, device: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    # The VM's process says whose it is, by its environment.
    for name in (procs.MARK, procs.INSTANCE):
        monkeypatch.setenv(name, device[name])
    env = {name: value for name, value in device.items() if name not in (procs.MARK, procs.INSTANCE)}
    assert Instance(1).id == "cvd-1"
    with crosvm.running(tmp_path / "vm") as vm:
        (tmp_path / "avd").mkdir()
        (tmp_path / "avd" / "cvd-1").symlink_to(vm.target.sockets)
        assert process.alive(vm.child.pid)
        listed = cfctl("control", "phone", "--json", **env)
        conforms(json.loads(listed.stdout), "operations")
        assert json.loads(listed.stdout)["vm_manager"] == "crosvm"
        for words in (
            ["balloon", "set", "2M"],
            ["balloon", "stats"],
            ["balloon", "working-set"],
            ["battery", "capacity", "15"],
            ["usb", "list"],
            ["usb", "detach", "3"],
            ["disk", "resize", "0", "2G"],
            ["swap", "status"],
            ["vcpus"],
            ["sleepbtn"],
            ["raw", '"Powerbtn"'],
        ):
            done = cfctl("control", "phone", *words, "--json", **env)
            assert done.returncode == 0, done.stdout
            conforms(json.loads(done.stdout), "control")
            assert cfctl("control", "phone", *words, **env).stdout or words == ["usb", "detach", "3"]
        assert (vm.state["balloon"], vm.state["disk"]) == (2 << 20, 2 << 30)
        for words, code in ((["key", "home"], 4), (["disk", "resize", "4", "1"], 1), (["usb", "detach", "16"], 2)):
            done = cfctl("control", "phone", *words, "--json", **env)
            assert done.returncode == code
            conforms(json.loads(done.stdout), "error")
        vm.fault("silent")
        done = cfctl("control", "phone", "balloon", "set", "1M", "--timeout", "1", "--json", **env)
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (5, "vm-silent")
    assert os.environ[procs.INSTANCE] == "1"
