"""The request that makes a container: a pure function of the wish, the machine's devices and the instance numbers.

Nothing here is more than a device needs; docs/docker.md says of each part why it is there. A test holds the whole
request, word by word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

import cfctl
from cfctl.docker import names, seccomp
from cfctl.errors import HostLacks
from cfctl.gpu import modes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cfctl.docker.wish import Wish

#: Without these no VM of any kind can be run in a container.
NEEDED = ("/dev/net/tun",)

#: Given where the machine has them. Without KVM everything is slow; without vhost-vsock the VM manager emulates it.
WELCOME = ("/dev/kvm", "/dev/vhost-net", "/dev/vhost-vsock")

CAPABILITIES = (
    "CHOWN",  # the first process gives the device nodes to the groups of the container's user
    "DAC_OVERRIDE",  # and writes into that user's volume
    "FOWNER",  # and sets the nodes' modes
    "NET_ADMIN",  # bridges, taps, addresses, NAT rules; of the container's own network
    "SETGID",  # sshd and the first process become the user
    "SETUID",
    "SYS_CHROOT",  # sshd locks its unprivileged half into an empty directory
)

SYSCTLS = {
    # /proc/sys is read-only inside. Guests reach the network through the container, which must forward.
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    # The DHCP and SSH servers have ports below 1024; so they need no capability for it.
    "net.ipv4.ip_unprivileged_port_start": "0",
    # What cfctl and upstream's script set on the bridges; new interfaces take them from here.
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
    "net.ipv6.conf.default.addr_gen_mode": "0",
    "net.ipv6.conf.default.autoconf": "1",
}

#: What podcvd gives a group of devices (docker.md section 3.2): an Android guest's VM manager starts hundreds.
PIDS_LIMIT = 8192

#: crosvm keeps a descriptor per page of some buffers; upstream's packages raise it likewise.
NOFILE = 65536

#: Seconds between SIGTERM and SIGKILL: the first process stops the device in order.
STOP_TIMEOUT_S = 60


@dataclass(frozen=True)
class Machine:
    """What the engine's machine has.

    :param nodes: device nodes.
    :param nvidia: the engine can give containers NVIDIA's driver by itself.
    :param nofile: the hard limit of open files that the engine may give; None if unknown.
    :param podman: the engine is podman, which reads a filter of system calls from a file of that machine only; its
        own one allows AF_VSOCK.
    :param group: the number of group cvdnetwork there; None if there is none.
    :param lock_directories: where bare-metal devices of that machine lock their numbers.
    """

    nodes: frozenset[str]
    nvidia: bool = False
    nofile: int | None = None
    podman: bool = False
    group: int | None = None
    lock_directories: tuple[str, ...] = ("/var/tmp/cvd/lock",)  # noqa: S108 (upstream's place)


def devices(wish: Wish, machine: Machine) -> list[str]:
    """Return the device nodes that a container gets.

    :raises HostLacks: without what no device can do without.
    """
    for node in NEEDED:
        if node not in machine.nodes:
            raise HostLacks(
                f"the engine's machine has no {node}",
                "A device's network is made of taps.",
                "Load the module there: sudo modprobe tun",
            )
    found = [node for node in (*NEEDED, *WELCOME) if node in machine.nodes]
    if not wants_gpu(wish):
        return found
    found += sorted(node for node in machine.nodes if node.startswith("/dev/dri/renderD"))
    if not machine.nvidia:
        found += sorted(node for node in machine.nodes if node.startswith("/dev/nvidia"))
    return found


def wants_gpu(wish: Wish) -> bool:
    """Tell whether the mode may draw with the host's GPU."""
    return wish.gpu not in modes.HOST_INDEPENDENT | {modes.HOST_SWIFTSHADER, modes.HOST_LAVAPIPE}


def build(
    name: str, wish: Wish, machine: Machine, numbers: Sequence[int], *, owner: str, sockets: Path, fleet: str | None
) -> dict[str, Any]:
    """Return the body of the engine's request ``/containers/create``.

    :param numbers: the instance numbers, consecutive.
    :param sockets: directory of the engine's machine that gets the devices' sockets.
    :raises HostLacks: see :func:`devices`.
    """
    own = ",".join(map(str, numbers))
    words = {
        "CFCTL_LAUNCH_NUMBERS": own,
        "CFCTL_HOST_NUMBERS": own,
        # A launcher opens its sockets to the group, and they can be reached out there too: by the same group,
        # or where there is none by nobody but the container's user.
        names.GROUP_NUMBER: str(machine.group or names.UID),
    }
    nodes = devices(wish, machine)
    nvidia = wants_gpu(wish) and machine.nvidia
    if nvidia:
        # The default, compute and utility, has neither EGL nor Vulkan (gpu.md section 6.3).
        words["NVIDIA_DRIVER_CAPABILITIES"] = "all"
    nofile = min(NOFILE, machine.nofile or NOFILE)
    return {
        "Image": wish.image,
        "Hostname": name.replace("_", "-").replace(".", "-"),
        "Env": [f"{key}={value}" for key, value in {**wish.env, **words}.items()],
        "Labels": {
            names.INSTANCE: str(numbers[0]),
            names.COUNT: str(len(numbers)),
            names.VSOCK: "true" if "/dev/vhost-vsock" in nodes else "false",
            names.REQUEST: msgspec.json.encode(wish).decode(),
            names.OWNER: owner,
            names.VERSION: cfctl.__version__,
            **({names.FLEET: fleet} if fleet else {}),
        },
        "StopTimeout": STOP_TIMEOUT_S,
        "HostConfig": {
            "Privileged": False,
            "CapDrop": ["ALL"],
            "CapAdd": list(CAPABILITIES),
            "Devices": [{"PathOnHost": node, "PathInContainer": node, "CgroupPermissions": "rw"} for node in nodes],
            **({"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]} if nvidia else {}),
            "Sysctls": dict(SYSCTLS),
            "Ulimits": [{"Name": "nofile", "Soft": nofile, "Hard": nofile}],
            "PidsLimit": PIDS_LIMIT,
            "SecurityOpt": ["no-new-privileges", *([] if machine.podman else [f"seccomp={seccomp.profile()}"])],
            "NetworkMode": wish.network,
            "RestartPolicy": {"Name": "unless-stopped" if wish.restart == "always" else wish.restart},
            "Binds": [
                *(f"{path}:{names.HOST_LOCKS}/{index}" for index, path in enumerate(machine.lock_directories)),
                f"{sockets}:{names.SOCKETS}",
                # Read-only: a socket in it can be connected to, and not be replaced. The engine makes it where it is
                # not there, so that an operator or relay that begins to listen later is found.
                f"{names.OPERATOR}:{names.OPERATOR}:ro",
            ],
            "Mounts": _mounts(name, wish),
        },
    }


def _mounts(name: str, wish: Wish) -> list[dict[str, Any]]:
    """Return the volumes and shares; unlike binds, a source that is missing is an error and is not made."""
    mounts: list[dict[str, Any]] = [{"Type": "volume", "Source": home_volume(name), "Target": names.HOME}]
    mounts += [
        {"Type": "volume", "Source": layer_volume(name, kind), "Target": target} for kind, _, target in layers(wish)
    ]
    mounts += [
        {"Type": "bind", "Source": share.source, "Target": share.target, "ReadOnly": share.read_only}
        for share in wish.shares
    ]
    return mounts


def layers(wish: Wish) -> list[tuple[str, str, str]]:
    """Return what is mounted with a writable layer over it: kind, directory of the engine's machine, place inside."""
    given = (("package", wish.host_package, names.HOST_PACKAGE), ("images", wish.images, names.IMAGES))
    return [(kind, source, target) for kind, source, target in given if source]


def home_volume(name: str) -> str:
    """Return the name of the volume with a container's home: disks and logs of its devices, what was pushed."""
    return f"cfctl-{name}"


def layer_volume(name: str, kind: str) -> str:
    """Return the name of the volume that shows a directory of the machine with a writable layer over it."""
    # The kind stands before the name, not behind it: a container may be called "phone-images", and has a home.
    return f"cfctl.{kind}-{name}"


def scratch_volume(name: str) -> str:
    """Return the name of the volume that has those layers."""
    return layer_volume(name, "layers")


def volumes(name: str) -> list[str]:
    """Return every volume that a container may have, in the order in which they can be removed."""
    return [layer_volume(name, "package"), layer_volume(name, "images"), scratch_volume(name), home_volume(name)]


def free_numbers(count: int, taken: set[int], *, limit: int) -> list[int] | None:
    """Return the lowest ``count`` consecutive numbers that nobody has; None if there are none up to ``limit``."""
    for first in range(1, limit - count + 2):
        run = range(first, first + count)
        if taken.isdisjoint(run):
            return list(run)
    return None
