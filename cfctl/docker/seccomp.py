"""The system calls that a container may use: Docker's usual ones, and AF_VSOCK, which Docker's own profile forbids.

A pure function makes the profile (docs.docker.com/engine/security/seccomp has the format); the engine gets it with
the request to make a container, so that nothing of it lies on the engine's machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_NAMES = Path(__file__).with_name("syscalls.txt")

_EPERM, _ENOSYS, _EPROTONOSUPPORT = 1, 38, 93

#: AF_NETLINK (bits/socket.h) and NETLINK_AUDIT (linux/netlink.h).
_NETLINK, _AUDIT = 16, 9

#: CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET (linux/sched.h): no namespaces inside.
_NEW_NAMESPACES = 0x7E020000

#: What personality(2) may be asked for: linux, PER_LINUX32, UNAME26 of both, and the question itself.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def names() -> list[str]:
    """Return the system calls that are allowed whatever their arguments."""
    lines = _NAMES.read_text().splitlines()
    return sorted({name for line in lines if not line.startswith("#") for name in line.split()})


def profile() -> str:
    """Return the profile, as the JSON that the engine takes."""
    return json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": _EPERM,
            "archMap": [
                {
                    "architecture": "SCMP_ARCH_X86_64",
                    "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                },
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            ],
            "syscalls": [
                _allow(names()),
                *_sockets(),
                _allow(["clone"], [_argument(0, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ", 0)]),
                # Its flags are in memory, where a filter cannot look; glibc then takes clone.
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
                *(_allow(["personality"], [_argument(0, value, "SCMP_CMP_EQ")]) for value in _PERSONALITIES),
            ],
        }
    )


def _sockets() -> list[dict[str, Any]]:
    """Return the rules of sockets: all address families, which is the difference to Docker's own profile.

    But for the kernel's audit: sshd would write each login at a terminal into the machine's log, may not, and ends.
    As a kernel without audit answers, it does without.
    """
    of_netlink, of_audit = (_argument(index, value, "SCMP_CMP_EQ") for index, value in ((0, _NETLINK), (2, _AUDIT)))
    refused = {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": _EPROTONOSUPPORT}
    return [
        _allow(["socket"], [_argument(0, _NETLINK, "SCMP_CMP_NE")]),
        _allow(["socket"], [of_netlink, _argument(2, _AUDIT, "SCMP_CMP_NE")]),
        refused | {"args": [of_netlink, of_audit]},
    ]


def _allow(calls: list[str], args: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"names": calls, "action": "SCMP_ACT_ALLOW", **({"args": args} if args else {})}


def _argument(index: int, value: int, op: str, value_two: int | None = None) -> dict[str, Any]:
    return {"index": index, "value": value, "op": op, **({} if value_two is None else {"valueTwo": value_two})}
