"""What a device must get before it counts as ready: adb commands from a file, or an APK.

The file is read, and everything in it checked, before anything is launched: a slip in its last line is not to cost a
boot. Words are split as a shell splits them; there is no other shell: nothing is expanded.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import process, steps
from cfctl.errors import DeadlinePassed, LaunchFailed, UsageError
from cfctl.launch import adb, boot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cfctl.launch.registry import Record, Request

#: The phase that is not over, in a device's record and in errors.
PHASE = "after-boot"

_SUFFIX = ".apk"
_LARGEST = 1 << 20
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Command:
    """One adb command.

    :param line: its number in the file; 0 for an APK that was named itself.
    :param words: as adb gets them.
    """

    line: int
    words: tuple[str, ...]

    @property
    def title(self) -> str:
        """For people."""
        where = f"line {self.line}: " if self.line else ""
        return f"{where}adb {shlex.join(self.words)}"


def of(request: Request) -> list[Command]:
    """Return what a request wants to be done after the boot; nothing if it wants nothing.

    :raises UsageError: for a file that cannot be used, naming the line.
    """
    return read(Path(request.after_boot)) if request.after_boot else []


def read(file: Path) -> list[Command]:
    """Return the commands of a file; an APK is one that installs it.

    :raises UsageError: if it cannot be read, or says something that cannot be done, naming the line.
    """
    if file.suffix.lower() == _SUFFIX:
        if not file.is_file():
            raise UsageError(f"--after-boot {file} does not exist")
        return [Command(0, ("install", "-r", str(file)))]
    try:
        if file.stat().st_size > _LARGEST:
            raise UsageError(f"--after-boot {file} is too large for a list of commands", None, "An APK ends in .apk.")
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not text (UTF-8)"
        raise UsageError(f"--after-boot {file} cannot be read", why) from exc
    return parse(text, str(file), file.parent)


def parse(text: str, source: str, directory: Path) -> list[Command]:
    """Read a list of commands.

    :param source: the file's name, for messages.
    :param directory: what relative names of local files begin at.
    :raises UsageError: for a line that cannot be done.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
            if words:
                found.append(Command(number, _checked(words, directory)))
        except ValueError as exc:
            raise UsageError(
                f"{source}, line {number}: {exc}",
                f"    {line.strip()}",
                f"A line is one of adb's commands ({', '.join(sorted(_COMMANDS))}), empty, or begins with #.",
            ) from exc
    return found


def _checked(words: Sequence[str], directory: Path) -> tuple[str, ...]:
    """Return a command as adb is to get it.

    :raises ValueError: if it cannot be done.
    """
    name, *rest = words[1:] if words[0] == "adb" and len(words) > 1 else words
    if name not in _COMMANDS:
        raise ValueError(f"adb {name} is not a command that can be used here")
    return (name, *_COMMANDS[name](rest, directory))


def _some(words: list[str], _directory: Path) -> list[str]:
    if not words:
        raise ValueError("it needs an argument")
    return words


def _none(words: list[str], _directory: Path) -> list[str]:
    if words:
        raise ValueError("it takes no argument")
    return words


def _apks(words: list[str], directory: Path) -> list[str]:
    files = [word for word in words if word.lower().endswith(_SUFFIX)]
    if not files:
        raise ValueError("it names no .apk")
    return [_local(word, directory) if word in files else word for word in words]


def _push(words: list[str], directory: Path) -> list[str]:
    options = [word for word in words if word.startswith("-")]
    names = [word for word in words if not word.startswith("-")]
    if len(names) < 2 or not names[-1].startswith("/"):
        raise ValueError("push needs a local file and a path in the guest that begins with /")
    return [*options, *(_local(name, directory) for name in names[:-1]), names[-1]]


def _local(name: str, directory: Path) -> str:
    path = directory / Path(name).expanduser()
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    return str(path)


#: What needs no terminal, ends by itself and leaves the device up, with the check of its arguments.
_COMMANDS: dict[str, Callable[[list[str], Path], list[str]]] = {
    "install": _apks,
    "install-multiple": _apks,
    "push": _push,
    "reverse": _some,
    "root": _none,
    "shell": _some,
    "uninstall": _some,
    "unroot": _none,
    "wait-for-device": _none,
}

#: After these adbd is another process, and the connection gone.
_RECONNECT = ("root", "unroot")


def run(record: Record, commands: Sequence[Command], *, deadline: float) -> None:
    """Run the commands on every instance, one after the other.

    :param deadline: on the monotonic clock.
    :raises LaunchFailed: for the first that fails, with its line and what it printed.
    :raises DeadlinePassed: if there is no time left.
    :raises MissingCommand: if adb is not installed.
    """
    for instance in record.instances if commands else ():
        which = f"{instance.id}, " if len(record.instances) > 1 else ""
        adb.connect(instance.adb, seconds=max(1.0, deadline - time.monotonic()))
        for command in commands:
            with steps.step(f"after boot, {which}{command.title}"):
                _run(record, instance.adb, command, deadline)
            if command.words[0] in _RECONNECT:
                adb.connect(instance.adb, seconds=max(1.0, deadline - time.monotonic()))


def _run(record: Record, serial: str, command: Command, deadline: float) -> None:
    left = deadline - time.monotonic()
    where = f"{record.request.after_boot}, {command.title}" if command.line else command.title
    try:
        if left <= 0:
            raise DeadlinePassed(f"there was no time left for {command.title}")
        done = process.run(["adb", "-s", serial, *command.words], timeout=left, success=None)
    except DeadlinePassed as error:
        raise DeadlinePassed(
            f"{record.name} did not become ready in time: {where}", error.brief, "Give it longer: --timeout SECONDS"
        ) from error
    if done.returncode:
        lines = [boot.clean(line) for line in (done.stdout + done.stderr).splitlines()]
        raise LaunchFailed(
            f"{record.name} did not become ready: {where} ended with status {done.returncode}",
            "\n".join(lines[-_SHOWN:]) or "It printed nothing.",
            f"Mend the file, then: cfctl restart {record.name}",
            phase=PHASE,
        )
