"""What the tests of the ``cfctl host`` verbs share."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.schemas import conforms
from tests.system.sandbox import INSIDE, REPO, Sandbox

#: Stays on purpose: all holders of the lock must lock the same inode.
LOCK = ["/run/cfctl", "/run/cfctl/host.lock", "/run/cfctl/watcher.lock"]


def snapshot(box: Sandbox) -> dict[str, Any]:
    """Return the host's state without the lock file, which stays."""
    found = box.snapshot()
    found["files"] = [path for path in found["files"] if path not in LOCK]
    return found


def read_host(box: Sandbox) -> Any:
    """Return the network as an independent reader sees it."""
    return json.loads(python(box, "tests.system.read_host").stdout)


def python_argv(module: str, *args: str) -> list[str]:
    python = Path(sys.prefix) / "bin" / "python"
    if python.is_relative_to(REPO):
        python = INSIDE / python.relative_to(REPO)
    return [str(python), "-m", module, *args]


def python(box: Sandbox, module: str, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run a module of this checkout inside."""
    # Thousands of set-ups, on a machine that may do other things beside.
    return box.run(*python_argv(module, *args), **{"timeout": 900, **kwargs})


@contextlib.contextmanager
def taps_in_use(box: Sandbox, *taps: str, user: str = "tester") -> Iterator[None]:
    """Hold taps open for the block, as an ordinary member of cvdnetwork."""
    client = box.start(
        *python_argv("tests.system.tap_client", *taps), user=user, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert client.stdout is not None
    assert client.stderr is not None
    pid = client.stdout.readline().strip()
    try:
        assert pid, client.stderr.read()
        yield
    finally:
        # nsenter is what was started; the client is its child.
        box.run("kill", "-9", pid)
        client.wait()
        client.stdout.close()
        client.stderr.close()


def fails(box: Sandbox, code: int, *args: str, **kwargs: Any) -> str:
    """Run ``cfctl ARGS``, which must fail with ``code``; return what it said to people."""
    done = box.cfctl(*args, check=False, **kwargs)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) < 24, "more than a screen"
    return done.stderr


def changes(box: Sandbox, *args: str, **kwargs: Any) -> list[tuple[str, str]]:
    """Run ``cfctl ARGS --json``; return the changes as (action, object)."""
    document = box.json(*args, **kwargs)
    conforms(document, "host")
    return [(change["action"], change["object"]) for change in document["changes"]]
