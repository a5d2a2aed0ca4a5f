"""A relay of root's on a host of a test's own, and what calls it from in there."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfctl.launch.generation import Generation
from tests import generations, standins
from tests.system.sandbox import USER, Sandbox

PORT = 7070
_OWN_PEM = "/var/lib/cfctl/relay/certificate.pem"
_PEM = "/run/relay.pem"


@dataclass
class Host:
    """A host with a relay."""

    box: Sandbox

    def call(self, method: str, request: dict[str, Any] | None = None, *more: str, user: str = USER) -> list[Any]:
        """Make a call on the unix socket, or where ``more`` says; return what was answered, the status last."""
        (answers,) = self._calls([(method, request or {})], *more, user=user)
        return answers

    def remote(self, secret: str, *calls: tuple[str, dict[str, Any]]) -> list[list[Any]]:
        """Make calls over TLS, with a token; return what was answered to each, the status last."""
        return self._calls(calls, "--address", f"127.0.0.1:{PORT}", "--pem", _PEM, "--token", secret)

    def _calls(self, calls: Sequence[tuple[str, dict[str, Any]]], *options: str, user: str = USER) -> list[list[Any]]:
        argv = [*self.box.cfctl_argv()[:1], "-m", "tests.relay.call", *options]
        done = self.box.run(*argv, *(word for name, asked in calls for word in (name, json.dumps(asked))), user=user)
        found: list[list[Any]] = [[]]
        for line in done.stdout.splitlines():
            document = json.loads(line)
            found[-1].append(document.get("ended", document))
            if "ended" in document:
                found.append([])
        return found[:-1]

    def token(self, *options: str, user: str = "root") -> str:
        """Make a token; return its secret."""
        secret: str = self.box.json("relay", "token", "create", *options, user=user)["secret"]
        return secret

    def package(self, tmp_path: Path, name: str = "package") -> str:
        """Put a host package into the cache of the user; return its name there."""
        archive = self._inside(generations.write(tmp_path / name, Generation.FORWARDING))
        self.box.cfctl("images", "add", archive, "--name", name, user=USER)
        return name

    def hanging(self, tmp_path: Path) -> str:
        """The same with one that hangs while it boots."""
        archive = self._inside(standins.write(tmp_path / "hanging", "hang-userspace"))
        self.box.cfctl("images", "add", archive, "--name", "hanging", user=USER)
        return "hanging"

    def _inside(self, directory: Path) -> str:
        packed = shutil.make_archive(str(directory), "gztar", directory)
        target = Path(f"/proc/{self.box.pid}/root/tmp") / Path(packed).name
        shutil.copyfile(packed, target)
        return f"/tmp/{Path(packed).name}"


@contextlib.contextmanager
def serving(box: Sandbox, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Host]:
    """Run a relay of root's for the block; others can read its certificate.

    :param options: more of them for it.
    :param env: more variables for it.
    """
    argv = box.cfctl_argv("relay", "serve", "--grpc", f"127.0.0.1:{PORT}", "--json", *options)
    with box.start(*argv, env=env, stdout=subprocess.PIPE) as relay:
        try:
            assert relay.stdout is not None
            for line in relay.stdout:
                if json.loads(line)["event"] == "ready":
                    break
            box.run("cp", _OWN_PEM, _PEM)
            yield Host(box)
        finally:
            box.run("pkill", "-TERM", "-f", "relay serve", check=False)
            relay.communicate(timeout=60)
            box.run("rm", "-f", _PEM)
