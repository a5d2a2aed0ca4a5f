"""What the flags make of each instance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cfctl.errors import UsageError
from cfctl.guest import configuration, gflags, options
from cfctl.guest.configuration import Configuration
from cfctl.guest.layout import Places
from cfctl.guest.options import InstanceOptions


def values(*argv: str) -> gflags.Values:
    return gflags.parse(gflags.table(), argv, program="launch_cvd", environ={})


def of(*argv: str, instances: tuple[int, ...] = (1,)) -> list[InstanceOptions]:
    return options.instance_options(values(*argv), instances)


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        ((), {}, [1]),
        (("--num_instances=3",), {}, [1, 2, 3]),
        (("--base_instance_num=5", "--num_instances=2"), {}, [5, 6]),
        (("--instance_nums=7,2",), {}, [7, 2]),
        ((), {"CUTTLEFISH_INSTANCE": "4"}, [4]),
        ((), {"CUTTLEFISH_INSTANCE": "cvd-4"}, [4]),
        ((), {"USER": "vsoc-09"}, [9]),
        (("--num_instances=2",), {"CUTTLEFISH_INSTANCE": "0"}, [1, 2]),
    ],
)
def test_numbers(argv: tuple[str, ...], environ: dict[str, str], expected: list[int]) -> None:
    assert options.numbers(values(*argv), environ) == expected


@pytest.mark.parametrize(
    "argv",
    [
        ("--instance_nums=1,2", "--base_instance_num=1"),
        ("--instance_nums=1,2", "--num_instances=3"),
        ("--instance_nums=1,1"),
        ("--instance_nums=0"),
        ("--instance_nums=one"),
        ("--num_instances=0"),
        ("--base_instance_num=128", "--num_instances=2"),
    ],
)
def test_numbers_that_make_no_sense(argv: tuple[str, ...] | str) -> None:
    with pytest.raises(UsageError):
        options.numbers(values(*((argv,) if isinstance(argv, str) else argv)), {})


def test_defaults_are_small() -> None:
    (entry,) = of()
    assert (entry.cpus, entry.memory_mb, entry.gpu_mode) == (1, 256, "guest_swiftshader")
    assert entry.webrtc_device_id == "cvd-1"
    assert entry.displays == (options.Display(720, 1348, 280, 60),)


def test_memory_that_is_too_little_for_this_guest() -> None:
    with pytest.raises(UsageError, match="--memory_mb=64: this guest needs 96 MiB at least"):
        of("--memory_mb=256,64", instances=(4, 5))
    assert of("--memory_mb=96")[0].memory_mb == 96


def test_a_list_gives_each_its_own_and_fills_up_with_the_first() -> None:
    entries = of("--cpus=3,1", "--memory_mb=512", "--gpu_mode=none,unset", instances=(4, 5, 6))
    assert [entry.cpus for entry in entries] == [3, 1, 3]
    assert [entry.memory_mb for entry in entries] == [512] * 3
    assert [entry.gpu_mode for entry in entries] == ["none", "guest_swiftshader", "none"]
    assert [entry.vsock_cid for entry in entries] == [6, 7, 8]


def test_one_instance_keeps_its_commas() -> None:
    (entry,) = of("--extra_kernel_cmdline=a=1,2 b")
    assert entry.extra_kernel_cmdline == "a=1,2 b"


def test_ids_and_serial_numbers() -> None:
    two = of("--webrtc_device_id=a-{num}", "--serial_number=S", instances=(3, 4))
    assert [entry.webrtc_device_id for entry in two] == ["a-3", "a-4"]
    assert [entry.serial_number for entry in two] == ["S3", "S4"]
    assert [entry.webrtc_device_id for entry in of("--webrtc_device_id=x,y", instances=(1, 2))] == ["x", "y"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("--gpu_mode=fast",), "Invalid gpu_mode provided: fast"),
        (("--cpus=many",), "--cpus: 'many' is not a whole number"),
        (("--webrtc_device_id=a/b",), "--webrtc_device_id: 'a/b' is not an id"),
        (("--serial_number=a b",), "--serial_number: 'a b' is not a serial number"),
        (("--display=width=3",), "--display=width=3: width and height are needed"),
        (("--fail_fast=maybe",), "illegal value 'maybe' specified for bool flag 'fail_fast'"),
    ],
)
def test_values_that_make_no_sense(argv: tuple[str, ...], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        of(*argv)
    assert caught.value.brief == text


def test_the_config_has_what_tools_read(tmp_path: Path) -> None:
    places = Places(tmp_path, tmp_path / "cuttlefish", tmp_path / "uds", tmp_path / "env")
    document = configuration.document(
        places, of("--display=width=800,height=600", instances=(2, 3)), daemon=True, accelerator="tcg", operator="/o"
    )
    assert json.loads(json.dumps(document)) == document
    assert document["instance_names"] == ["cvd-2", "cvd-3"]
    assert document["vm_manager"] == "qemu_cli"
    part = document["instances"]["2"]
    assert part["adb_host_port"] == 6521
    assert part["adb_ip_and_port"] == "127.0.0.1:6521"
    assert part["display_configs"] == [
        {"x_res": 800, "y_res": 600, "dpi": 320, "refresh_rate_hz": 60, "overlays": ""}
    ]
    file = tmp_path / ".cuttlefish_config.json"
    file.write_text(json.dumps(document))
    read = Configuration.read({"HOME": str(tmp_path)})
    assert [instance.number for instance in read.instances] == [2, 3]
    assert read.places.monitor(read.instances[0]) == tmp_path / "uds/cvd-2/launcher_monitor.sock"
