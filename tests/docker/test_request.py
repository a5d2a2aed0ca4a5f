"""The request that makes a container: what a device needs, on machines that have much and on poor ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cfctl.docker import names, request, seccomp
from cfctl.docker.request import Machine
from cfctl.docker.wish import Share, Wish, check, check_name
from cfctl.errors import HostLacks, UsageError

#: A machine as no test machine is: every node, two GPUs.
EVERYTHING = Machine(
    nodes=frozenset(
        {
            "/dev/net/tun",
            "/dev/kvm",
            "/dev/vhost-net",
            "/dev/vhost-vsock",
            "/dev/dri/renderD128",
            "/dev/dri/renderD129",
            "/dev/nvidia0",
            "/dev/nvidiactl",
        }
    ),
    nofile=1_000_000,
    group=970,
)
LITTLE = Machine(nodes=frozenset({"/dev/net/tun"}), nofile=4096)


def built(wish: Wish, machine: Machine, numbers: tuple[int, ...] = (3,)) -> dict[str, Any]:
    return request.build("phone", wish, machine, numbers, owner="me", sockets=Path("/run/s"), fleet=None)


def nodes(body: dict[str, Any]) -> list[str]:
    return [device["PathOnHost"] for device in body["HostConfig"]["Devices"]]


def test_the_whole_request() -> None:
    body = built(Wish(), EVERYTHING)
    assert set(body) == {"Image", "Hostname", "Env", "Labels", "StopTimeout", "HostConfig"}
    assert body["Env"] == ["CFCTL_LAUNCH_NUMBERS=3", "CFCTL_HOST_NUMBERS=3", "CVDNETWORK_GID=970"]
    labels = body["Labels"]
    assert (labels["cf_instance"], labels["n_cf_instances"], labels["vsock_guest_cid"]) == ("3", "1", "true")
    config = body["HostConfig"]
    assert config.pop("SecurityOpt") == ["no-new-privileges", f"seccomp={seccomp.profile()}"]
    assert config == {
        "Privileged": False,
        "CapDrop": ["ALL"],
        "CapAdd": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "NET_ADMIN", "SETGID", "SETUID", "SYS_CHROOT"],
        "Devices": [
            {"PathOnHost": node, "PathInContainer": node, "CgroupPermissions": "rw"}
            for node in (
                *("/dev/net/tun", "/dev/kvm", "/dev/vhost-net", "/dev/vhost-vsock"),
                *("/dev/dri/renderD128", "/dev/dri/renderD129", "/dev/nvidia0", "/dev/nvidiactl"),
            )
        ],
        "Sysctls": {
            "net.ipv4.ip_forward": "1",
            "net.ipv6.conf.all.forwarding": "1",
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv6.conf.all.disable_ipv6": "0",
            "net.ipv6.conf.default.disable_ipv6": "0",
            "net.ipv6.conf.default.addr_gen_mode": "0",
            "net.ipv6.conf.default.autoconf": "1",
        },
        "Ulimits": [{"Name": "nofile", "Soft": 65536, "Hard": 65536}],
        "PidsLimit": 8192,
        "NetworkMode": "bridge",
        "RestartPolicy": {"Name": "no"},
        "Binds": [
            "/var/tmp/cvd/lock:/run/host-numbers/0",
            "/run/s:/tmp/cf_avd_1000",
            "/run/cuttlefish:/run/cuttlefish:ro",
        ],
        "Mounts": [{"Type": "volume", "Source": "cfctl-phone", "Target": "/home/vsoc-01"}],
    }


def test_a_device_that_draws_for_itself_gets_no_gpu() -> None:
    for mode in ("guest_swiftshader", "none", "gfxstream_guest_angle_host_swiftshader"):
        assert nodes(built(Wish(gpu=mode), EVERYTHING)) == [
            "/dev/net/tun",
            "/dev/kvm",
            "/dev/vhost-net",
            "/dev/vhost-vsock",
        ]
    assert "/dev/dri/renderD128" in nodes(built(Wish(gpu="gfxstream"), EVERYTHING))


def test_nvidia_by_the_engine_instead_of_nodes() -> None:
    machine = Machine(nodes=EVERYTHING.nodes, nvidia=True)
    body = built(Wish(), machine)
    assert body["HostConfig"]["DeviceRequests"] == [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]
    assert "NVIDIA_DRIVER_CAPABILITIES=all" in body["Env"]
    assert not [node for node in nodes(body) if "nvidia" in node]
    assert "DeviceRequests" not in built(Wish(gpu="none"), machine)["HostConfig"]


def test_podman_has_a_filter_of_its_own() -> None:
    """It takes no profile over its socket, only a file of its machine; its default allows AF_VSOCK."""
    assert built(Wish(), Machine(LITTLE.nodes, podman=True))["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]


def test_a_machine_that_has_little() -> None:
    body = built(Wish(), LITTLE)
    assert nodes(body) == ["/dev/net/tun"]
    assert body["Labels"]["vsock_guest_cid"] == "false"
    assert body["HostConfig"]["Ulimits"] == [{"Name": "nofile", "Soft": 4096, "Hard": 4096}]
    with pytest.raises(HostLacks, match="no /dev/net/tun") as error:
        built(Wish(), Machine(nodes=frozenset()))
    assert error.value.resolution == "Load the module there: sudo modprobe tun"


def test_images_shares_and_several_instances() -> None:
    wish = Wish(
        host_package="/srv/cf",
        images="/srv/img",
        num_instances=2,
        shares=(Share("/a", "/b", True),),
        restart="always",
    )
    body = built(wish, LITTLE, (5, 6))
    assert body["Labels"]["n_cf_instances"] == "2"
    assert body["Env"][:2] == ["CFCTL_LAUNCH_NUMBERS=5,6", "CFCTL_HOST_NUMBERS=5,6"]
    assert body["HostConfig"]["Mounts"][1:] == [
        {"Type": "volume", "Source": "cfctl.package-phone", "Target": names.HOST_PACKAGE},
        {"Type": "volume", "Source": "cfctl.images-phone", "Target": names.IMAGES},
        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
    ]
    # `docker stop` is to last until somebody starts it.
    assert body["HostConfig"]["RestartPolicy"] == {"Name": "unless-stopped"}


def test_no_container_has_a_volume_that_is_anothers() -> None:
    called = ["phone", "phone-images", "phone-layers", "phone-package", "images-phone", "phone-images-images"]
    volumes = [volume for name in called for volume in request.volumes(name)]
    assert len(set(volumes)) == len(volumes)


def test_numbers() -> None:
    assert request.free_numbers(1, set(), limit=128) == [1]
    assert request.free_numbers(2, {1, 3}, limit=128) == [4, 5]
    assert request.free_numbers(1, set(range(1, 129)), limit=128) is None
    assert request.free_numbers(2, set(range(1, 128)), limit=128) is None


def test_the_profile_allows_vsock_and_no_namespaces() -> None:
    profile = json.loads(seccomp.profile())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    always = {
        name
        for rule in profile["syscalls"]
        if "args" not in rule and "errnoRet" not in rule
        for name in rule["names"]
    }
    assert {"read", "ioctl", "futex", "execve"} <= always
    # Any family; of netlink all but audit, whose absence sshd can live with.
    sockets = [(rule["action"], rule["args"]) for rule in profile["syscalls"] if rule["names"] == ["socket"]]
    assert [(action, [(a["index"], a["value"], a["op"]) for a in args]) for action, args in sockets] == [
        ("SCMP_ACT_ALLOW", [(0, 16, "SCMP_CMP_NE")]),
        ("SCMP_ACT_ALLOW", [(0, 16, "SCMP_CMP_EQ"), (2, 9, "SCMP_CMP_NE")]),
        ("SCMP_ACT_ERRNO", [(0, 16, "SCMP_CMP_EQ"), (2, 9, "SCMP_CMP_EQ")]),
    ]
    blocked = {"mount", "unshare", "setns", "bpf", "ptrace", "keyctl", "kexec_load", "init_module", "io_uring_setup"}
    assert (
        always & (blocked | {"clone", "clone3", "open_by_handle_at", "fsopen", "userfaultfd", "perf_event_open"})
        == set()
    )
    [clone] = [rule for rule in profile["syscalls"] if rule["names"] == ["clone"]]
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 0}]


@pytest.mark.parametrize(
    "text", ["/a", ":/b", "/a:", "/a:/b:rx", "/:/b", "~:/b", "/a:/home/vsoc-01", "/a:.", "/a:/etc"]
)
def test_shares_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Share.parse(text)


def test_shares() -> None:
    assert Share.parse("/srv/x:data:ro") == Share("/srv/x", "/home/vsoc-01/data", True)
    assert Share.parse("/srv/x:/mnt/x") == Share("/srv/x", "/mnt/x", False)


@pytest.mark.parametrize(
    "wish",
    [
        Wish(num_instances=0),
        Wish(num_instances=129),
        Wish(cpus=0),
        Wish(memory_mb=0),
        Wish(restart="sometimes"),
        Wish(network="host"),
        Wish(images="/srv/a,b"),
        Wish(host_package="/srv/a:b"),
        Wish(network="container:x"),
        Wish(env={"CFCTL_LAUNCH_NUMBERS": "1"}),
    ],
)
def test_wishes_that_make_no_sense(wish: Wish) -> None:
    with pytest.raises(UsageError):
        check(wish)


def test_container_names() -> None:
    assert check_name("phone-1.x_y") == "phone-1.x_y"
    for name in ("a", "-x", "x y", "../x", "x" * 64):
        with pytest.raises(UsageError):
            check_name(name)
