"""The first process of a container: takes the numbers, sets the network up, runs sshd, reaps, stops in order.

It holds the numbers' locks for as long as the container runs, in the directory of the engine's machine that bare
metal uses, so that no two devices of that machine have the same vsock CID. They are flocks without the byte ``I``:
when the container is killed the kernel gives the numbers back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import config, locks, process
from cfctl.docker import inside, names
from cfctl.errors import CfctlError, NumberTaken
from cfctl.hostres import host
from cfctl.instance import Instance

if TYPE_CHECKING:
    from cfctl.locks import NumberLock
    from cfctl.process import Child

#: Device node -> the group that may use it, and its mode; the nodes are the container's own copies.
_NODES = {
    "/dev/kvm": ("kvm", 0o660),
    "/dev/net/tun": ("cvdnetwork", 0o660),
    "/dev/vhost-net": ("cvdnetwork", 0o660),
    "/dev/vhost-vsock": ("cvdnetwork", 0o660),
}
_RENDER_NODES = ("/dev/dri/renderD*", "/dev/dri/card*")

#: Of Debian: sshd wants it, and nobody but a service makes it.
_SSHD_DIRECTORY = Path("/run/sshd")

#: Seconds that a device may take to stop.
_STOP_S = 40
_TICK_S = 0.5


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def take_numbers(numbers: tuple[int, ...]) -> list[NumberLock]:
    """Take the numbers on the engine's machine; the locks are held until this process ends.

    :raises NumberTaken: if another device of that machine has one.
    """
    directories = [path for path in sorted(Path(names.HOST_LOCKS).glob("*")) if path.is_dir()]
    if not directories:
        return []
    return [locks.NumberLock.take(Instance(number), directories, mark=False) for number in numbers]


def prepare_group(file: Path = Path("/etc/group")) -> None:
    """Give group cvdnetwork the number that it has on the engine's machine, which sees the sockets' directory too."""
    number = os.environ.get(names.GROUP_NUMBER, "")
    if not number.isdecimal():
        return
    lines = [line.split(":") for line in file.read_text().splitlines()]
    for fields in lines:
        if fields[0] == names.GROUP:
            fields[2] = number
    text = "".join(f"{':'.join(fields)}\n" for fields in lines)
    if text != file.read_text():
        file.write_text(text)


def prepare_nodes() -> None:
    """Let the container's user have the devices that the container was given."""
    import grp

    for path, (group, mode) in _NODES.items():
        if Path(path).exists():
            os.chown(path, 0, grp.getgrnam(group).gr_gid)
            Path(path).chmod(mode)
    for pattern in _RENDER_NODES:
        for node in Path("/").glob(pattern[1:]):
            os.chown(node, 0, grp.getgrnam("render").gr_gid)
            node.chmod(0o660)


def prepare_directories() -> None:
    """Make the directories that are mounted from outside the user's own, and those that are lost with /run."""
    for path in (Path(names.HOME), Path(names.SOCKETS)):
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, names.UID, names.UID)
    for path in (Path(names.HOST_PACKAGE), Path(names.IMAGES)):
        if path.is_dir():
            # Of the writable layer over it; the directory below stays as it is.
            os.chown(path, names.UID, names.UID)
    Path(names.SOCKETS).chmod(0o750)
    for stale in Path(names.SOCKETS).iterdir():
        _remove(stale)
    _SSHD_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    Path(names.READY).parent.mkdir(mode=0o755, parents=True, exist_ok=True)


def _remove(path: Path) -> None:
    """Remove what a container that was killed has left in a directory of the engine's machine."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def start_sshd(numbers: tuple[int, ...]) -> Child:
    """Start the SSH server; its host key is made by the first start of the container."""
    if not Path(names.HOST_KEY).exists():
        process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", names.HOST_KEY], timeout=60)
    # Whoever logs in must find the same settings as whoever comes through the engine.
    own = ",".join(map(str, numbers))
    settings = f"CFCTL_LAUNCH_NUMBERS={own} CFCTL_HOST_NUMBERS={own}"
    return process.start(
        [process.require("sshd"), "-D", "-e", "-o", f"SetEnv={settings}"], output=Path("/proc/self/fd/2")
    )


def as_user(*argv: str) -> list[str]:
    """Return the command that runs ``argv`` as the container's user."""
    return ["setpriv", f"--reuid={names.UID}", f"--regid={names.UID}", "--init-groups", *argv]


def user_environment() -> dict[str, str]:
    """Return the environment of the container's user."""
    return {**os.environ, "HOME": names.HOME, "USER": names.USER, "LOGNAME": names.USER}


def boot_again() -> Child | None:
    """Boot the device again if it was up when the container ended; what it says goes to the container's log."""
    wanted = inside.WANTED.read_text() if inside.WANTED.exists() else ""
    # Empty: somebody starts the container to boot the device, and would come second.
    if not wanted:
        return None
    return process.start(
        as_user(names.PYTHON, "-m", "cfctl.docker.inside", wanted),
        output=Path("/proc/self/fd/2"),
        env=user_environment(),
    )


def stop_devices() -> None:
    """Stop what runs; the container is killed if that takes too long."""
    devices = Path(names.HOME) / ".local/state/cfctl/devices"
    running = sorted(path.parent.name for path in devices.glob("[!.]*/device.json"))
    if running:
        with contextlib.suppress(CfctlError):
            process.run(
                as_user(names.PYTHON, "-m", "cfctl", "stop", *running),
                timeout=_STOP_S,
                success=None,
                env=user_environment(),
            )


def reap() -> list[int]:
    """Collect every child that has ended, whoever started it; return their ids."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            ended.append(pid)
    return ended


class Ended(Exception):
    """Somebody wants the container to stop."""


def serve(numbers: tuple[int, ...]) -> None:
    """Run until somebody ends the container."""
    sshd = start_sshd(numbers)
    boot_again()
    # Which start of the container this is; whoever waits compares.
    Path(names.READY).write_text(Path("/proc/1/stat").read_text().split()[21])
    while True:
        time.sleep(_TICK_S)
        if sshd.pid in reap():
            _say("sshd ended and is started again")
            sshd = start_sshd(numbers)


def _end(_number: int, _frame: object) -> None:
    raise Ended


def main() -> int:
    """Be the first process; return the container's exit status."""
    held: list[NumberLock] = []
    try:
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGINT, _end)
        Path(names.READY).unlink(missing_ok=True)
        settings = config.load()
        numbers = settings["launch.numbers"]
        held += take_numbers(numbers)
        prepare_group()
        prepare_directories()
        prepare_nodes()
        host.setup(settings)
        _say(f"instances {', '.join(map(str, numbers))}: ready")
        serve(numbers)
    except NumberTaken as error:
        _say(str(error))
        return names.NUMBER_TAKEN
    except CfctlError as error:
        _say(str(error))
        return error.exit_code
    except Ended:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        Path(names.READY).unlink(missing_ok=True)
        stop_devices()
        for left in Path(names.SOCKETS).iterdir():
            _remove(left)
        for lock in held:
            lock.close()
    return 0
