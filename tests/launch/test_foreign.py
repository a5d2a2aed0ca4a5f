"""Devices of others: what follows from what the kernel and the files say."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import process
from cfctl.launch import foreign, procs, runtime_config
from cfctl.launch.foreign import Facts, Process, find
from cfctl.launch.observe import State
from cfctl.launch.procs import Seen
from cfctl.launch.runtime_config import InstanceConfig, RuntimeConfig
from tests.schemas import conforms

QEMU = ("/usr/bin/qemu-system-x86_64", "-name", "guest=cvd-3", "-m", "2048")
CROSVM = (
    "/home/x/bin/crosvm",
    "--extended-status",
    "run",
    "--socket=/tmp/cf_avd_7/cvd-3/internal/crosvm_control.sock",
)


def socket(uid: int, number: int) -> str:
    return f"/tmp/cf_avd_{uid}/cvd-{number}/launcher_monitor.sock"


def run_cvd(pid: int, number: int, home: str, **env: str) -> Process:
    return Process(Seen(pid, ("/x/bin/run_cvd",), {"HOME": home, "CUTTLEFISH_INSTANCE": str(number), **env}), 7)


def logs(home: Path, number: int, text: str) -> None:
    directory = home / "cuttlefish" / "instances" / f"cvd-{number}" / "logs"
    directory.mkdir(parents=True)
    (directory / "kernel.log").write_text(text)


def test_a_shell_with_the_variables_of_a_launcher_is_no_device() -> None:
    shell = Process(Seen(5, ("bash",), {"HOME": "/home/x", "CUTTLEFISH_INSTANCE": "3"}), 7)
    assert find(Facts(processes=(shell,))) == []


@pytest.mark.parametrize("text", ["VIRTUAL_DEVICE_BOOT_STARTED\n", "VIRTUAL_DEVICE_BOOT_COMPLETED\n"])
def test_launch_cvd_by_hand(tmp_path: Path, text: str) -> None:
    logs(tmp_path, 3, text)
    facts = Facts(processes=(run_cvd(5, 3, str(tmp_path)),), sockets={socket(7, 3): 7})
    (device,) = find(facts)
    assert (device.name, device.source, device.numbers) == ("cvd-3", "launch_cvd", (3,))
    assert device.home == str(tmp_path)
    assert device.state is (State.RUNNING if "COMPLETED" in text else State.BOOTING)
    conforms(device.as_dict(), "device")


def test_two_instances_of_one_launch_are_one_device(tmp_path: Path) -> None:
    for number in (3, 4):
        logs(tmp_path, number, "VIRTUAL_DEVICE_BOOT_COMPLETED\n")
    processes = (run_cvd(5, 3, str(tmp_path)), run_cvd(6, 4, str(tmp_path)))
    (device,) = find(Facts(processes=processes, sockets={socket(7, 3): 7, socket(7, 4): 7}))
    assert device.numbers == (3, 4)
    assert device.state is State.RUNNING
    (device,) = find(Facts(processes=processes, sockets={socket(7, 3): 7}))
    assert device.state is State.UNREACHABLE, "one of them has lost its socket"


@pytest.mark.parametrize(
    ("env", "home", "source"),
    [
        ({"_STARTED_BY_CVD_SERVER_": "true"}, "/home/x", "cvd"),
        ({}, "/var/tmp/cvd/7/123/home", "cvd"),
        ({"CFCTL_DEVICE": "/home/x/.local/state/cfctl/devices/tablet"}, "/home/x", "cfctl"),
        ({}, "/home/x", "launch_cvd"),
    ],
)
def test_who_made_it(env: dict[str, str], home: str, source: str) -> None:
    (device,) = find(Facts(processes=(run_cvd(5, 3, home, **env),)))
    assert device.source == source
    assert device.name == ("tablet" if source == "cfctl" else "cvd-3")
    record = device.record
    assert (record.name, record.home, record.numbers) == (device.name, Path(device.home or ""), (3,))


@pytest.mark.parametrize("argv", [QEMU, CROSVM])
def test_another_users_vm_counts_only_with_a_socket_here(argv: tuple[str, ...]) -> None:
    vm = Process(Seen(5, argv), 7)
    assert find(Facts(processes=(vm,))) == [], "it may run in a container"
    (device,) = find(Facts(processes=(vm,), sockets={socket(7, 3): 7}))
    assert (device.source, device.state, device.home) == ("unknown", State.RUNNING, None)
    assert device.as_dict()["instances"][0]["vm_pid"] == 5
    conforms(device.as_dict(), "device")


def test_what_is_ours_is_not_listed_twice() -> None:
    assert find(Facts(sockets={socket(0, 1): 0}, locks={1: 0}), own_numbers={1}) == []


def test_a_name_of_ours_is_not_given_twice() -> None:
    # Two users of Debian's base system; the third is nobody's, and another one.
    facts = Facts(sockets={socket(7, 3): 7, socket(8, 3): 8, socket(64999, 3): 64999})
    assert [d.name for d in find(facts, taken={"cvd-3"})] == ["lp-cvd-3", "mail-cvd-3", "64999-cvd-3"]
    taken = {"cvd-3", "lp-cvd-3", "foreign-lp-cvd-3"}
    assert next(d.name for d in find(facts, taken=taken)) == "foreign-foreign-lp-cvd-3"


def test_of_one_s_own_nothing_is_said_but_that_another_program_made_it() -> None:
    own = os.geteuid()
    (device,) = find(Facts(sockets={socket(own, 3): own}), taken={"cvd-3"})
    assert device.name == "foreign-cvd-3"


def test_a_name_with_its_owner_is_one_that_verbs_take() -> None:
    name = "p" * 54
    (device,) = find(Facts(processes=(run_cvd(5, 3, "/home/x", CFCTL_DEVICE=f"/x/{name}"),)), taken={name})
    assert device.name == f"foreign-{name}"


def test_dead_ones() -> None:
    config = RuntimeConfig("/home/x/cuttlefish", "/tmp/cf_avd_7", {3: InstanceConfig(gpu_mode="none")})
    configs = {"/home/x": (config, 7)}
    assert [d.state for d in find(Facts(configs=configs))] == [State.STOPPED]
    assert [d.state for d in find(Facts(configs=configs, locks={3: 7}))] == [State.STALE]
    (device,) = find(Facts(locks={9: 7}))
    assert (device.state, device.name, device.source) == (State.STALE, "cvd-9", "unknown")
    (device,) = find(Facts(locks={9: 7}, held=frozenset({9})))
    assert device.state is State.PREPARING, "somebody holds its lock"
    (device,) = find(Facts(locks={9: 7}, preparing=True))
    assert device.state is State.PREPARING, "cvd takes a number long before it has a device"


def test_ports_and_modes_come_from_the_launchers_config() -> None:
    config = RuntimeConfig(None, None, {3: InstanceConfig(7777, "drm_virgl", 4096, "grp-1", 55)})
    facts = Facts(processes=(run_cvd(5, 3, "/home/x"),), configs={"/home/x": (config, 7)})
    document = find(facts)[0].as_dict()
    assert document["gpu_mode"] == "drm_virgl"
    assert document["guest_memory_mb"] == 4096
    assert document["instances"][0]["adb"] == "127.0.0.1:7777"
    assert document["instances"][0]["vsock_cid"] == 55
    assert document["instances"][0]["guest_memory_mb"] == 4096


texts = st.text(max_size=30) | st.sampled_from([*map(socket, (0, 7, 7), (1, 3, 200)), "/cvd-1/launcher_monitor.sock"])
numbers = st.integers(-5, 300)
envs = st.none() | st.dictionaries(
    st.sampled_from(["HOME", "CUTTLEFISH_INSTANCE", "CFCTL_DEVICE", "ANDROID_HOST_OUT", "_STARTED_BY_CVD_SERVER_"]),
    texts | numbers.map(str),
)
argvs = st.lists(st.sampled_from([*QEMU, *CROSVM, "run_cvd", "bash"]) | texts, min_size=1, max_size=4).map(tuple)


@given(
    processes=st.lists(st.builds(Process, st.builds(Seen, st.integers(1, 9), argvs, envs), st.integers(0, 9))),
    sockets=st.dictionaries(texts, st.none() | st.integers(0, 9)),
    locks=st.dictionaries(st.integers(1, 128), st.integers(0, 9)),
)
def test_whatever_is_found_is_a_device_or_nothing(
    processes: list[Process], sockets: dict[str, int | None], locks: dict[int, int]
) -> None:
    found = find(Facts(processes=tuple(processes), sockets=sockets, locks=locks))
    assert len({device.name for device in found}) == len(found)
    for device in found:
        conforms(device.as_dict(), "device")
    assert set(locks) <= {number for device in found for number in device.numbers}


# -- what a launcher wrote down ----------------------------------------------------------------------------

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = ["root_dir", "instances_uds_dir", "instances", "adb_host_port", "gpu_mode", "memory_mb", "vsock_guest_cid"]


@given(st.dictionaries(st.sampled_from(keys), junk | st.dictionaries(st.sampled_from(["1", "x", "999"]), junk)))
def test_any_config_is_a_result(document: dict[str, object]) -> None:
    config = runtime_config.parse(json.dumps(document).encode())
    assert config is not None
    for number, instance in config.instances.items():
        assert 1 <= number <= 128
        assert instance.adb_port is None or 0 < instance.adb_port < 65536


@given(st.binary(max_size=60))
def test_any_bytes_are_a_config_or_nothing(raw: bytes) -> None:
    runtime_config.parse(raw)
    runtime_config.parse(b'{"instances":' + raw)


def test_a_config_nested_too_deep_is_nothing() -> None:
    assert runtime_config.parse(b"[" * 100_000) is None


def test_a_trap_in_place_of_a_config_is_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "none", "."):
        assert runtime_config.read(tmp_path / name) is None


# -- the kernel's answers ----------------------------------------------------------------------------------


@given(st.text(max_size=200))
def test_any_list_of_sockets_is_a_result(text: str) -> None:
    assert procs.listening_sockets(f"Num RefCount\n{text}") is not None


def test_listening_sockets_as_the_kernel_writes_them() -> None:
    # As recorded; the second one is connected, not listening.
    text = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 21037 /tmp/cf_avd_0/cvd-1/launcher_monitor.sock\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03 21040 /tmp/cf_avd_0/cvd-2/launcher_monitor.sock\n"
    )
    assert procs.listening_sockets(text) == {"/tmp/cf_avd_0/cvd-1/launcher_monitor.sock"}


def test_usage_of_this_process() -> None:
    usage = procs.usage([(os.getpid(), True), (0, False)])
    assert usage.memory_mb
    assert usage.uptime_s is not None
    assert usage.started_at
    assert procs.usage([]) == procs.Usage()


def test_names_of_users() -> None:
    assert foreign.user_name(0) == "root"
    assert foreign.user_name(4_000_000_000) == "4000000000"


def test_a_program_that_was_just_started_has_its_environment() -> None:
    for _ in range(20):
        with subprocess.Popen(["sleep", "5"], env={"MARKED": "yes", "PATH": os.environ["PATH"]}) as child:
            procs.await_environment(child.pid)
            assert process.environment(child.pid).get("MARKED") == "yes"
            child.kill()
        procs.await_environment(child.pid)
