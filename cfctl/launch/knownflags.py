"""Which flags a launcher knows: one that it does not know would stop it, so it is asked first.

Asking costs some tenths of a second (upstream's launcher asks two programs of its own in turn), so the answer is
kept, under what names the file: a package that is replaced is asked again.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from pathlib import Path

import msgspec

from cfctl import paths, process
from cfctl.errors import CfctlError
from cfctl.launch import observe

_ASK_S = 20.0
_NAME = re.compile(r"<name>([A-Za-z0-9_]+)</name>")


def of(launcher: Path) -> frozenset[str]:
    """Return the names of the flags that a launcher lists with ``--helpxml``; none if it does not say.

    :param launcher: the program.
    """
    kept = _place(launcher)
    try:
        return frozenset(msgspec.json.decode(kept.read_bytes(), type=list[str]))
    except (OSError, msgspec.DecodeError):
        pass
    found = _ask(launcher)
    if found:
        _keep(kept, found)
    return found


def parse(text: str) -> frozenset[str]:
    """Read what ``--helpxml`` prints; text around it is ignored."""
    return frozenset(_NAME.findall(text))


def _ask(launcher: Path) -> frozenset[str]:
    """Ask in a HOME of its own: what knows no help might take the question for a launch."""
    with tempfile.TemporaryDirectory(prefix="cfctl-flags-") as name:
        env = {**os.environ, "HOME": name, observe.MARK: name, "LC_ALL": "C"}
        try:
            # Both of gflags' help texts end with status 1.
            done = process.run([launcher, "--helpxml"], timeout=_ASK_S, success=None, env=env, cwd=Path("/"))
        except CfctlError:
            return frozenset()
        finally:
            process.end([found.pid for found in observe.processes([Path(name)])[Path(name)]], patience=0)
    return parse(done.stdout) if "<AllFlags>" in done.stdout else frozenset()


def _place(launcher: Path) -> Path:
    status = launcher.stat()
    identity = f"{launcher.resolve()} {status.st_ino} {status.st_mtime_ns} {status.st_size}"
    return paths.current().flag_listings / f"{hashlib.sha256(identity.encode()).hexdigest()}-names.json"


def _keep(place: Path, found: frozenset[str]) -> None:
    scratch = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(msgspec.json.encode(sorted(found)))
        scratch.replace(place)
    except OSError:
        # A cache that cannot be written costs time, no more.
        scratch.unlink(missing_ok=True)
