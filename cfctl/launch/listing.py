"""Which flags a launcher knows, by its own word: ``--helpxml``, or ``--help`` where that says nothing.

Flags come and go between versions, and one that is unknown ends the launcher (launcher.md section 2.1). So it is
asked once, and its answer is kept in the cache.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import html
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfctl import disk, paths, process
from cfctl.artifacts import entries
from cfctl.errors import CfctlError, UsageError
from cfctl.launch import observe, parent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfctl.launch.hostpackage import HostPackage

#: It runs assemble_cvd and run_cvd twice each to learn their flags; a cold disk takes a while.
_ASK_S = 60.0

#: What decides which flags there are: the launcher's own, and those of the two that it asks.
_DECIDE = ("assemble_cvd", "run_cvd")

#: Of ours, what is left out where it is unknown; old launchers ask on the terminal without it.
_OPTIONAL = {"report_anonymous_usage_stats"}

_XML_FLAG = re.compile(r"<flag>(.*?)</flag>", re.DOTALL)
_XML_FIELD = re.compile(r"<(name|type|default)>(.*?)</\1>", re.DOTALL)
#: gflags writes ``    -name (meaning) type: string default: "x"`` and wraps it anywhere between words.
_TEXT_FLAG = re.compile(
    r"^ {2,4}--?(\w+) \((?:.*?)\)\s+type:\s+(\w+)\s+default:\s+(\".*?\"|\S+)", re.MULTILINE | re.DOTALL
)


class Flag(msgspec.Struct, frozen=True):
    """A flag of a launcher, with gflags' name of its type (bool, int32, string)."""

    type: str
    default: str


class Listing(msgspec.Struct, frozen=True):
    """The flags that a launcher knows, by name."""

    flags: dict[str, Flag]


def parse(text: str) -> Listing | None:
    """Read what ``--helpxml`` or ``--help`` printed; None if no flags are in it."""
    flags = _xml(text) or _text(text)
    return Listing(flags) if flags else None


def _xml(text: str) -> dict[str, Flag]:
    found = {}
    for block in _XML_FLAG.findall(text):
        fields = {name: html.unescape(value).strip() for name, value in _XML_FIELD.findall(block)}
        if re.fullmatch(r"\w+", fields.get("name", "")):
            found[fields["name"]] = Flag(fields.get("type", ""), fields.get("default", ""))
    return found


def _text(text: str) -> dict[str, Flag]:
    return {name: Flag(kind, default.strip('"')) for name, kind, default in _TEXT_FLAG.findall(text)}


def of(package: HostPackage) -> Listing | None:
    """Return the flags of a package's launcher, from the cache if it was asked before.

    :return: None if it does not tell; every flag is handed to it then.
    """
    try:
        kept = paths.current().flag_listings / f"{_key(package)}.json"
    except OSError:
        return None
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(kept.read_bytes(), type=Listing)
    listing = ask(package)
    if listing is not None:
        # A cache that cannot be written costs the time of asking again.
        with contextlib.suppress(OSError):
            entries.make_directory(kept.parent)
            disk.replace(kept, msgspec.json.encode(listing), wait=False)
    return listing


def _key(package: HostPackage) -> str:
    programs = [package.start, *(package.path / "bin" / name for name in _DECIDE)]
    digest = hashlib.sha256()
    for program in programs:
        if program.exists():
            status = program.stat()
            about = (os.fspath(program.resolve()), status.st_ino, status.st_size, status.st_mtime_ns)
            digest.update(repr(about).encode(errors="surrogateescape"))
    return digest.hexdigest()


def ask(package: HostPackage) -> Listing | None:
    """Ask the launcher, in a HOME of its own and with a parent that keeps it from asking ``cvd``."""
    cache = paths.current().flag_listings
    try:
        # Not in /tmp, where hardened hosts let nobody execute.
        entries.make_directory(cache)
        scratch = tempfile.TemporaryDirectory(prefix=".ask-", dir=cache)
    except OSError:
        return None
    with scratch as name:
        home = Path(name)
        env = dict(os.environ)
        env.pop("TMPDIR", None)
        env |= {"HOME": name, "ANDROID_HOST_OUT": os.fspath(package.path), observe.MARK: name, "LC_ALL": "C"}
        for flag in ("--helpxml", "--help"):
            try:
                argv = parent.argv(home / "parent", [package.start, flag])
                said = process.run(argv, timeout=_ASK_S, success=None, env=env, cwd=Path("/"))
            except CfctlError:
                return None
            finally:
                # One that takes --help for a launch, and what it has started.
                process.end([p.pid for p in observe.processes([home])[home]], patience=0)
            if (listing := parse(said.stdout)) or (listing := parse(said.stderr)):
                return listing
    return None


def name_of(flag: str) -> str:
    """Return the name of a flag as given: ``--name=value``, ``-name``."""
    return flag.lstrip("-").partition("=")[0]


def knows(listing: Listing, flag: str) -> bool:
    """Tell whether a launcher knows a flag; on/off flags have a form that begins with ``no``."""
    name = name_of(flag)
    return name in listing.flags or (name.startswith("no") and name[2:] in listing.flags and "=" not in flag)


def check(given: Iterable[str], listing: Listing | None) -> None:
    """Look at a user's flags.

    :raises UsageError: for one that the launcher does not know, with those that look like it.
    """
    if listing is None:
        return
    for flag in given:
        if not knows(listing, flag):
            near = difflib.get_close_matches(name_of(flag).replace("-", "_"), listing.flags, n=3)
            raise UsageError(
                f"the launcher of this host package has no flag --{name_of(flag)}",
                f"It knows {len(listing.flags)} flags" + (f"; like it: --{', --'.join(near)}." if near else "."),
                "Flags differ between versions: leave it out, or take another host package.",
            )


def fit(ours: Iterable[str], listing: Listing | None) -> list[str]:
    """Return those of our own flags that a launcher knows.

    :raises UsageError: if it lacks one that cannot be left out.
    """
    fitting = []
    for flag in ours:
        if listing is None or knows(listing, flag):
            fitting.append(flag)
        elif name_of(flag) not in _OPTIONAL and flag != "--num_instances=1":
            raise UsageError(
                f"the launcher of this host package has no flag --{name_of(flag)}",
                f"{flag} follows from what was asked for.",
                "Ask for less, or take a newer host package.",
            )
    return fitting
