"""A container engine of a test's own: dockerd inside a sandbox, with a base image that needs no network.

The base is made once per clone (debootstrap, a minute), the image once per state of the checkout: in a store in
build/test-cache of which each engine gets a copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfctl import arch as arches
from cfctl.docker import image
from cfctl.guest import image as guest_image
from tests.system import sandbox as sandboxes
from tests.system.sandbox import CACHE, Sandbox

#: The name of the base image: debootstrap's, with everything that the Dockerfile would install.
BASE = "cfctl-base:12"

#: The image of cfctl that all tests share; they build it from what is in the checkout.
TAG = "cfctl"

#: The engine of a test, and its store: one for each of the processes that tests run in, or they wait for each other.
NAME = f"docker{os.environ.get('PYTEST_XDIST_WORKER', '')}"

#: In a store: what its base and its image were made of.
_SEED = "cfctl-made-of"

_INSIDE_CACHE = Path("/var/cache/cfctl")

#: Only what no engine needs and what is big.
_LEFT_OUT = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists")

#: Runs inside a sandbox. Arguments: name of the engine, its store. cgroups: the sandbox's own /sys has none mounted.
_START = r"""
set -eu
if [ ! -e /sys/fs/cgroup/cgroup.controllers ] && [ -z "$(ls /sys/fs/cgroup)" ]; then
    if awk '$1 == "memory" && $2 != 0 { found = 1 } END { exit !found }' /proc/cgroups; then
        mount -t tmpfs -o mode=0755 tmpfs /sys/fs/cgroup
        # Only hierarchies that the machine has: mounting another would make it, for everybody.
        for name in $(awk 'NR > 1 && $2 != 0 { print $1 }' /proc/cgroups); do
            mkdir "/sys/fs/cgroup/$name"
            mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name"
        done
        if grep -q ':name=systemd:' /proc/self/cgroup; then
            mkdir /sys/fs/cgroup/systemd
            mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
        fi
    else
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
    fi
fi
mkdir -p "$2" "/run/$1"
exec dockerd -H "unix:///run/$1.sock" --data-root "$2" --exec-root "/run/$1" --pidfile "/run/$1.pid" \
    --cgroup-parent "/cfctl-test-$1" --bip "$3"
"""


def base_archive() -> Path:
    """Return the base as a tar archive, made if need be."""
    packages = [*image.Recipe().packages, "openssh-client"]
    digest = hashlib.sha256(repr([packages, image.Recipe().pins]).encode()).hexdigest()[:12]
    archive = CACHE / f"docker-base-{digest}.tar"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "docker-base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            for old in CACHE.glob("docker-base-*.tar"):
                old.unlink()
            _make_base(archive, packages)
    return archive


def _make_base(archive: Path, packages: list[str]) -> None:
    tree = archive.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    codename = _os_release("VERSION_CODENAME")
    try:
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", codename, tree, _mirror()],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=900,
        )
        for name in _LEFT_OUT:
            shutil.rmtree(tree / name, ignore_errors=True)
        (tree / "var/cache/apt/archives/partial").mkdir(parents=True)
        _add_libraries(tree / f"usr/local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/dist-packages")
        subprocess.run(["tar", "-C", tree, "-cf", archive.with_suffix(".part"), "."], check=True, timeout=300)
        archive.with_suffix(".part").rename(archive)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _add_libraries(target: Path) -> None:
    """Give the base the libraries that pip would fetch: from this very environment, so of the same versions."""
    for pin in image.Recipe().pins:
        found = importlib.metadata.distribution(pin.partition("==")[0])
        for file in found.files or []:
            source = Path(str(file.locate()))
            if ".." not in file.parts and "__pycache__" not in file.parts and source.is_file():
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target / file)


def _mirror() -> str:
    """Return the first mirror that this machine's own apt uses."""
    found = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True)
    uris = found.stdout.split()
    assert uris, "apt knows no mirror here"
    # Others, of security updates say, have not the whole distribution.
    return next((uri for uri in uris if uri.rstrip("/").endswith(("/debian", "/ubuntu"))), uris[0])


def _os_release(name: str) -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2].strip('"') for line in lines if line.startswith(f"{name}="))


@dataclass
class Engine:
    """A running dockerd.

    :param url: of its socket, as seen inside the sandbox.
    """

    box: Sandbox
    name: str
    url: str
    process: subprocess.Popen[str]

    def docker(self, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run Docker's own command line against it: an independent reader."""
        return self.box.run("docker", "-H", self.url, *args, **kwargs)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what the engine says about a container."""
        document: dict[str, Any] = json.loads(self.docker("inspect", name).stdout)[0]
        return document

    def left(self) -> dict[str, list[str]]:
        """Return what is on the engine beside images and Docker's own networks."""
        return {
            "containers": self.docker("ps", "-aq").stdout.split(),
            "volumes": self.docker("volume", "ls", "-q").stdout.split(),
            "networks": self.docker("network", "ls", "-q", "--filter", "type=custom").stdout.split(),
        }

    def stop(self) -> None:
        """Stop it in order, with its containers."""
        pid = self.box.run("cat", f"/run/{self.name}.pid", check=False).stdout.strip()
        if pid:
            self.box.run("kill", pid, check=False)
        self.process.wait(120)

    def clear(self) -> None:
        """Remove what a test, or one before that was killed, has left."""
        if containers := self.docker("ps", "-aq").stdout.split():
            self.docker("rm", "-f", "-v", *containers)
        if volumes := self.docker("volume", "ls", "-q").stdout.split():
            self.docker("volume", "rm", *volumes)


def start(box: Sandbox, name: str = NAME, *, subnet: str = "172.17.0.1/16", log: Path | None = None) -> Engine:
    """Start dockerd in a sandbox and wait until it answers."""
    store = _INSIDE_CACHE / f"docker-store-{name}"
    output = (log or box.root / f"{name}.log").open("w")
    process = box.start("sh", "-c", _START, "dockerd", name, str(store), subnet, stdout=output, stderr=output)
    output.close()
    engine = Engine(box, name, f"unix:///run/{name}.sock", process)
    deadline = time.monotonic() + 60
    while engine.docker("version", check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"dockerd did not start:\n{Path(output.name).read_text()[-3000:]}")
        time.sleep(0.1)
    return engine


@contextlib.contextmanager
def running(box: Sandbox, name: str = NAME, *, subnet: str = "172.17.0.1/16", kvm: bool = True) -> Iterator[Engine]:
    """Run dockerd with the base image for the block.

    :param kvm: leave the machine's KVM as it is. Where it hangs, every new container takes 3 s to find that out.
    """
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context((CACHE / f"docker-store-{name}.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        _seed(CACHE / f"docker-store-{name}")
        if not kvm:
            box.run("mount", "--bind", "/dev/null", "/dev/kvm", check=False)
        engine = start(box, name, subnet=subnet)
        stack.callback(_remove_cgroups, name)
        stack.callback(engine.stop)
        engine.clear()
        give_base(engine)
        yield engine
        engine.clear()


def _seed(store: Path) -> None:
    """Give an engine that does not run a store with base and image, unless it has it; the first one makes them.

    A build of its own for each store would cost a quarter of a minute of the processor, a copy a fifth of that.
    """
    made_of = (base_archive().stem, image.Recipe(base=BASE).key, guest_image.key(arches.host()))
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
    first = CACHE / "docker-store-first"
    with (CACHE / "docker-store-first.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _seed_of(first) != key:
            (first / _SEED).unlink(missing_ok=True)
            with tempfile.TemporaryDirectory() as scratch, sandboxes.sandbox(Path(scratch) / "sandbox") as box:
                engine = start(box, "first")
                try:
                    give_base(engine)
                    build_image(engine)
                    engine.docker("image", "prune", "-f")
                finally:
                    engine.stop()
                    _remove_cgroups("first")
            (first / _SEED).write_text(key)
        if _seed_of(store) != key:
            part = store.with_suffix(".part")
            for old in (store, part):
                shutil.rmtree(old, ignore_errors=True)
            # With the attributes by which overlayfs tells what a layer hides.
            subprocess.run(["cp", "-a", "--reflink=auto", first, part], check=True, timeout=300)
            part.rename(store)


def _seed_of(store: Path) -> str:
    """Return what a store was made of, or nothing."""
    return (store / _SEED).read_text() if (store / _SEED).is_file() else ""


def give_base(engine: Engine) -> None:
    """Import the base image, unless the store has it."""
    archive = base_archive()
    label = f"LABEL cfctl.test-base={archive.stem}"
    have = engine.docker("image", "ls", "-q", "--filter", f"label=cfctl.test-base={archive.stem}", BASE).stdout
    if not have.strip():
        engine.docker("import", "--change", label, str(_INSIDE_CACHE / archive.name), BASE, timeout=300)


def build_image(engine: Engine) -> None:
    """Build the image; nothing is done if it is current."""
    engine.box.cfctl("docker", "build", "--base", BASE, "--gpu", "none", "--engine", engine.url, timeout=300)


def _remove_cgroups(name: str) -> None:
    """Remove the cgroups of the engine: those alone are not the sandbox's own."""
    for directory in sorted(Path("/sys/fs/cgroup").glob(f"**/cfctl-test-{name}"), reverse=True):
        for path, _, _ in os.walk(directory, topdown=False):
            with contextlib.suppress(OSError):
                Path(path).rmdir()
