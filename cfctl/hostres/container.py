"""Where this process stands: in the host's own network namespace, in a container, and the way into another one."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import paths
from cfctl.errors import CfctlError, NotAPod, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The kernel shows it in its first network namespace alone (net/core/sysctl_net_core.c: one table for every
#: namespace, another for ``init_net``), whatever mount, process or user namespaces are around it.
_ONLY_IN_THE_FIRST = Path("/proc/sys/net/core/netdev_max_backlog")

#: Docker's, podman's, and what systemd-nspawn and others write (systemd.io/CONTAINER_INTERFACE).
_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"), Path("/run/systemd/container"))
_CGROUPS = ("docker", "kubepods", "containerd", "libpod", "lxc", "crio")

# linux/sched.h, linux/mount.h
_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000


def require(*, named: bool, root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> None:
    """Make sure that taking the address of the network interface cuts nobody off but a container.

    :param named: somebody has named the namespace, which must still not be the host's.
    :param root: where the files are looked for.
    :param environ: instead of this process's.
    :raises NotAPod: in the host's own network namespace, or without any sign of a container.
    """
    if (root / _ONLY_IN_THE_FIRST.relative_to("/")).exists():
        raise NotAPod(
            "this is the host's own network namespace",
            "Pod mode takes the address of the network interface and gives it to the VM: the host would be cut off. "
            "Nothing was changed.",
            "Run it inside the container (which must not share the host's network), "
            "or name its namespace: cfctl host setup --pod --netns /proc/PID/ns/net",
        )
    if not named and not sign_of_container(root, os.environ if environ is None else environ):
        raise NotAPod(
            "this does not look like a container",
            "There is no /.dockerenv, /run/.containerenv, /run/systemd/container, KUBERNETES_SERVICE_HOST nor a "
            "container's cgroup. Nothing was changed.",
            "If it is the right network namespace, name it: cfctl host setup --pod --netns /proc/self/ns/net",
        )


def sign_of_container(root: Path, environ: Mapping[str, str]) -> str | None:
    """Return what says that this is a container; a sign, not a proof: such files are also made by hand."""
    for mark in _MARKS:
        if (root / mark.relative_to("/")).exists():
            return str(mark)
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "KUBERNETES_SERVICE_HOST"
    try:
        cgroups = (root / "proc/1/cgroup").read_text()
    except OSError:
        return None
    return next((f"cgroup of {word}" for word in _CGROUPS if word in cgroups), None)


def enter(path: Path) -> None:
    """Go into a network namespace, with a ``/run`` of its own: this process stays there.

    The runtime files of the namespace are apart from the host's: below ``/run/cfctl/netns``, by its inode.

    :raises UsageError: if the path names no network namespace.
    :raises CfctlError: if the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise _not_a_namespace(path, exc.strerror) from exc
    try:
        inode = os.fstat(fd).st_ino
        if inode == Path("/proc/self/ns/net").stat().st_ino:
            # The place where we are: its files are where they always are.
            return
        # os.setns came with Python 3.12.
        if libc.setns(fd, _CLONE_NEWNET):
            raise _not_a_namespace(path, os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)
    own_run(libc, paths.current().runtime / "netns" / str(inode))


def own_run(libc: Any, directory: Path) -> None:
    """Put a directory in the place of ``/run``, for this process and those that it starts.

    :param libc: the C library.
    :raises CfctlError: if the kernel refuses.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    private = _MS_REC | _MS_PRIVATE
    # Each needs the one before: in the mount namespace of everybody, everybody's /run would be gone.
    if (
        libc.unshare(_CLONE_NEWNS)
        or libc.mount(None, b"/", None, private, None)
        or libc.mount(os.fsencode(directory), b"/run", None, _MS_BIND, None)
    ):
        raise CfctlError(
            "the network namespace cannot be given a /run of its own",
            os.strerror(ctypes.get_errno()),
            "Run cfctl inside the container instead",
        )


def _not_a_namespace(path: Path, why: str | None) -> UsageError:
    return UsageError(
        f"{path} is no network namespace that can be entered",
        why,
        "Name one, for example /proc/PID/ns/net or /run/netns/NAME",
    )
