"""What a launch from elsewhere may ask for becomes a verb; everything else is refused by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import UsageError
from cfctl.relay import allow
from cfctl.v1.devices_pb2 import LaunchRequest


def test_a_whole_launch() -> None:
    request = LaunchRequest(
        name="phone",
        host_package="nightly",
        images="nightly-images_2",
        gpu="guest_swiftshader",
        num_instances=2,
        cpus=[2, 4],
        memory_mb=[2048],
        flags=["--x_res=720", "--display0=width=720,height=1280,dpi=240"],
        restart="on-failure",
        timeout_s=60,
    )
    assert allow.launch(request) == [
        *("launch", "phone", "--events", "--timeout", "60", "--host-package", "nightly"),
        *("--images", "nightly-images_2", "--gpu", "guest_swiftshader", "--restart", "on-failure"),
        *("--num-instances", "2", "--cpus", "2,4", "--memory-mb", "2048"),
        *("--", "--x_res=720", "--display0=width=720,height=1280,dpi=240"),
    ]


def test_nothing_but_a_launch() -> None:
    assert allow.launch(LaunchRequest(no_wait=True)) == ["launch", "--events", "--no-wait"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../phone"),
        ("name", "-f"),
        ("host_package", "/opt/cf"),
        ("host_package", "~/cf"),
        ("host_package", ".."),
        ("host_package", "a/b"),
        ("images", "--force"),
        ("images", "images\n"),
        ("gpu", "--after-boot"),
        ("gpu", "auto --force"),
        ("restart", "on failure"),
    ],
)
def test_words_that_are_refused(field: str, value: str) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(UsageError) as caught:
        allow.launch(LaunchRequest(**fields))
    assert field in caught.value.brief


@pytest.mark.parametrize(
    "flag",
    [
        "--extra_kernel_cmdline=init=/bin/sh",
        "--extra_bootconfig_args=x",
        "--crosvm_binary=/tmp/evil",
        "--qemu_binary_dir=/tmp",
        "--vm_manager=qemu_cli",
        "--data_image=/etc/shadow",
        "--bridged_wifi_tap=true",
        "--ril_dns=1.1.1.1",
        "--daemon=false",
        "--noenable_audio",
        "--enable_audio",
        "-x_res=5",
        "x_res=5",
        "--x_res=5;reboot",
        "--x_res=",
        "--x_res=5\n",
        "--display0=width=5,overlays=/etc/passwd",
        "--",
        "",
    ],
)
def test_flags_that_are_refused(flag: str) -> None:
    with pytest.raises(UsageError, match="cannot be asked for from elsewhere") as caught:
        allow.launch(LaunchRequest(flags=[flag]))
    assert repr(flag)[1:-1][:20] in caught.value.brief or flag[:10] in caught.value.brief


def test_the_page_names_every_flag() -> None:
    text = (Path(__file__).parents[2] / "docs" / "relay.md").read_text()
    named = {f"display{number}" for number in range(4)} | set(re.findall(r"(?<=--)[a-z0-9_]+", text))
    assert set(allow.FLAGS) <= named


def test_a_timeout_that_nobody_waits_for() -> None:
    with pytest.raises(UsageError, match="contradict"):
        allow.launch(LaunchRequest(no_wait=True, timeout_s=5))


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_but_listed_flags_comes_through(name: str, value: str) -> None:
    try:
        argv = allow.launch(LaunchRequest(flags=[f"--{name}={value}"]))
    except UsageError:
        return
    flag = argv[argv.index("--") + 1]
    assert flag.partition("=")[0].removeprefix("--") in allow.FLAGS
    assert not set(flag) & set("/;|&$`'\"\\ \n~")
