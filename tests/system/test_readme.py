"""What the README tells people to type is typed, on a host of its own."""

from __future__ import annotations

import re
from pathlib import Path

from tests.system.sandbox import REPO, Sandbox


def commands() -> list[str]:
    """Return the ``cfctl`` commands of the README's "Use it", a line each, without comments."""
    section = (REPO / "README.md").read_text().partition("## Use it")[2].partition("\n## ")[0]
    block = section.partition("```sh\n")[2].partition("```")[0]
    lines = (re.sub(r"\s+#.*", "", line) for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line.startswith("cfctl")]


def test_every_command_works(sandbox: Sandbox, host_package: Path) -> None:
    sandbox.run("mkdir", "-p", "/tmp/home", "/tmp/bin")
    sandbox.run("ln", "-s", str(host_package), "/tmp/home/cf")
    sandbox.run("sh", "-c", f"printf '#!/bin/sh\\nexec {' '.join(sandbox.cfctl_argv())} \"$@\"\\n' >/tmp/bin/cfctl")
    sandbox.run("chmod", "+x", "/tmp/bin/cfctl")
    env = {"HOME": "/tmp/home", "PATH": "/tmp/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    typed = commands()
    assert len(typed) >= 8
    for command in typed:
        # Following a log goes on for ever; half a second of it is enough.
        endless = command.endswith(" -f")
        done = sandbox.run("timeout", "0.5" if endless else "60", "sh", "-c", command, env=env, check=False)
        assert done.returncode in ((124,) if endless else (0,)), f"{command}: {done.stdout}{done.stderr}"
