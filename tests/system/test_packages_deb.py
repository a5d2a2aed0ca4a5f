"""The Debian packages, installed by apt into a Debian of their own: they work, survive an upgrade, and go cleanly."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.packaging import built
from tests.schemas import conforms
from tests.system.package_tree import Tree

pytestmark = pytest.mark.system

#: Has a tap open, as a VMM has.
_HOLD = """
import fcntl, os, struct, time
tap = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"cvd-mtap-01", 0x5002))
print(os.getpid(), flush=True)
time.sleep(600)
"""


def install(tree: Tree, packages: built.Built, *names: str) -> subprocess.CompletedProcess[str]:
    files = tree.bring(*(packages.deb[name] for name in names or built.NAMES))
    return tree.run("apt-get", "install", "-y", "-q", "--no-install-recommends", *files)


@contextlib.contextmanager
def tap_in_use(tree: Tree) -> Iterator[None]:
    """Have a device up for the block, as far as the kernel can tell."""
    with tree.start("python3", "-c", _HOLD, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        pid = holder.stdout.readline().strip()
        assert pid, "the tap is not there"
        try:
            yield
        finally:
            # nsenter waits for it.
            tree.run("kill", "-9", pid)


@contextlib.contextmanager
def device(tree: Tree) -> Iterator[dict[str, Any]]:
    """Have a real device up for the block."""
    # No systemd is there that could give it a scope.
    tree.run("cfctl", "launch", "phone", env={"CFCTL_LAUNCH_SCOPE": "false"})
    try:
        yield status(tree)
    finally:
        tree.run("cfctl", "stop", "phone")


def status(tree: Tree) -> dict[str, Any]:
    """Return what does not change as long as a device is up."""
    document = json.loads(tree.run("cfctl", "status", "phone", "--json").stdout)
    assert document["state"] == "running"
    return {name: document[name] for name in ("state", "home", "started_at", "booted_at", "instances")}


def links(tree: Tree) -> dict[str, int]:
    found = json.loads(tree.run("ip", "-j", "link").stdout)
    return {link["ifname"]: link["ifindex"] for link in found if link["ifname"].startswith("cvd-")}


def newer(tree: Tree, file: Path, name: str) -> str:
    """Make the same package of a later version, inside; its own file of settings differs."""
    work = f"/packages/{name}.newer"
    tree.run("dpkg-deb", "-R", f"/packages/{file.name}", work)
    tree.run("sed", "-i", "s/0\\.1\\.0-1~deb12/0.1.1-1/", f"{work}/DEBIAN/control")
    settings = tree.path(f"{work}/etc/cfctl/config.toml")
    if settings.exists():
        settings.write_text(settings.read_text() + "# A comment of the new version.\n")
    tree.run("dpkg-deb", "-Znone", "--build", work, f"{work}.deb")
    return f"{work}.deb"


def test_the_packages_work_as_installed(tree: Tree, packages: built.Built) -> None:
    said = install(tree, packages)
    assert "could be compiled" not in said.stdout + said.stderr
    assert tree.run("cfctl", "--version").stdout == "cfctl 0.1.0\n"
    plan = json.loads(tree.run("cfctl", "host", "plan", "--json", check=False).stdout)
    conforms(plan, "host")
    assert plan["state"] == "absent"
    # Its own environment, and nothing else: not the caller's folder, not the system's packages.
    code = "import sys, cfctl, grpc, docker; print(sys.prefix, *(p for p in sys.path if 'packages' in p))"
    site = "/usr/lib/cfctl/lib/python3.11/site-packages"
    assert tree.run("/usr/lib/cfctl/bin/python3", "-I", "-c", code).stdout.split() == ["/usr/lib/cfctl", site]
    assert tree.run("python3", "-c", "import cfctl", check=False).returncode != 0
    # As fast as from a virtual environment: what is imported is compiled, and nothing more is imported.
    sources = {path.stem for path in tree.path(f"{site}/cfctl").rglob("*.py")}
    compiled = {path.name.partition(".")[0] for path in tree.path(f"{site}/cfctl").rglob("*.pyc")}
    assert sources == compiled
    # Where launchers look for it.
    query = "/usr/lib/cuttlefish-common/bin/capability_query.py"
    assert tree.run(query).stdout.split() == ["capability_check", "qemu_cli", "vsock"]
    assert tree.run(query, "qemu_cli").returncode == 0
    assert tree.run(query, "levitation", check=False).returncode == 1
    doctor = json.loads(tree.run("cfctl", "host", "doctor", "--json", check=False).stdout)
    found = {finding["check"]: finding["result"] for finding in doctor["findings"]}
    assert found["capability_query.py"] == "ok"
    assert tree.run("dpkg", "--verify", *built.NAMES).stdout == ""
    # Enabled, under upstream's name too.
    enabled = {path.name: path.readlink() for path in tree.path("/etc/systemd/system").rglob("*cuttlefish*")}
    assert {str(target).rpartition("/")[2] for target in enabled.values()} == {"cfctl-host-resources.service"}
    assert "cuttlefish-host-resources.service" in enabled
    wanted = {path.name for path in tree.path("/etc/systemd/system").rglob("*cfctl*")}
    assert wanted <= {"cfctl-host-resources.service", "cfctl-relay.service"}
    assert "cfctl-host-resources.service" in wanted
    units = [path.name for path in tree.path("/usr/lib/systemd/system").glob("cfctl-*")]
    verified = tree.run("systemd-analyze", "verify", *(f"/usr/lib/systemd/system/{name}" for name in units))
    assert [line for line in verified.stderr.splitlines() if "cfctl" in line] == []
    assert tree.run("systemd-sysusers", "--dry-run", "/usr/lib/sysusers.d/cfctl.conf").returncode == 0
    # The relay, told an address for browsers as the sample of settings says.
    settings = tree.path("/etc/cfctl/config.toml")
    text = settings.read_text()
    settings.write_text(
        re.sub(r"^# (\[relay\]|web = .*)$", r"\1", text, flags=re.MULTILINE).replace("0.0.0.0", "127.0.0.1")
    )
    serve = ("sh", "-c", "echo $$; exec cfctl relay serve >/dev/null 2>&1")
    with tree.start(*serve, stdout=subprocess.PIPE) as relay:
        assert relay.stdout is not None
        pid = relay.stdout.readline().strip()
        try:
            assert tree.run("python3", "-c", _ASK_PAGE).stdout == "200\n"
        finally:
            tree.run("kill", pid)
    settings.write_text(text)
    # What takes pictures, with all that is beside it.
    encoder = "import aiortc, av; print(av.codec.Codec('libvpx', 'w').name)"
    assert tree.run("/usr/lib/cfctl/bin/python3", "-I", "-c", encoder).stdout == "libvpx\n"
    # A VM, from what the packages brought.
    demo = tree.run("cfctl", "demo", "--json")
    document = json.loads(demo.stdout)
    conforms(document, "demo")
    assert document["uname"].startswith("Linux")
    assert links(tree) == {}


#: Asks the relay for its page, as soon as it answers.
_ASK_PAGE = """
import time, urllib.request
deadline = time.monotonic() + 60
while True:
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8443/", timeout=60).status)
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.1)
"""

#: Types the beginning of a command into an interactive zsh, and a tab; prints what stands there then.
_ZSH = r"""
import os, pty, re, select, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "dumb"
    os.execvp("zsh", ["zsh", "-f", "-i"])
def until(pattern, text=b""):
    deadline = time.monotonic() + 60
    while not re.search(pattern, text):
        if time.monotonic() > deadline:
            sys.exit(f"zsh does not say {pattern}: {text}")
        if select.select([terminal], [], [], 1)[0]:
            text += os.read(terminal, 4096)
    return text
os.write(terminal, b"PS1=; autoload -Uz compinit; compinit -u -D; unsetopt zle_bracketed_paste; echo rea''dy\n")
until(b"ready")
os.write(terminal, b"cfctl host pla\t")
until(b"cfctl host plan ")
os.write(terminal, b"--js\t")
until(b"--json ")
print("completed")
os.close(terminal)
"""


def test_each_shell_completes_what_is_typed(tree: Tree, packages: built.Built) -> None:
    install(tree, packages, "cfctl")
    ask = (
        "source /usr/share/bash-completion/completions/cfctl; COMP_WORDS=(cfctl host pla); COMP_CWORD=2; "
        '_cfctl_completion cfctl; echo "${COMPREPLY[@]}"'
    )
    assert tree.run("bash", "-c", ask).stdout.split() == ["plan"]
    # It finds the script by itself, as an interactive one does.
    offered = tree.run("fish", "-c", "complete -C 'cfctl host pla'").stdout.splitlines()
    assert [line.split("\t")[0] for line in offered] == ["plan"]
    assert tree.run("python3", "-c", _ZSH).stdout == "completed\n"


def test_an_upgrade_keeps_devices_and_settings_and_a_removal_refuses_while_they_are_up(
    tree: Tree, packages: built.Built
) -> None:
    tree.systemd()
    install(tree, packages, "cfctl", "cfctl-host-resources", "cfctl-relay", "cfctl-guest")
    asked = tree.asked_of_systemd()
    assert [line for line in asked if " start " in f" {line}" and line.endswith("cfctl-relay.service")]
    assert [line for line in asked if " start " in f" {line}" and line.endswith("cfctl-host-resources.service")]
    before = links(tree)
    assert len(before) == 42, "a server is ready after one install"
    tree.path("/etc/cfctl/config.toml").write_text("[host]\ninstances = 10\ndns = 'host'\n")
    with device(tree) as up:
        names = ("cfctl", "cfctl-host-resources", "cfctl-relay")
        files = [newer(tree, packages.deb[name], name) for name in names]
        tree.run(
            "apt-get",
            "install",
            "-y",
            "-q",
            "--no-install-recommends",
            "-o",
            "Dpkg::Options::=--force-confold",
            *files,
        )
        asked = tree.asked_of_systemd()
        assert not [line for line in asked if line.startswith(("stop", "restart"))]
        assert "reload cfctl-host-resources.service" in asked
        assert "try-restart cfctl-host-run.service" in asked
        assert "try-restart cfctl-relay.service" in asked
        assert links(tree) == before
        assert "dns = 'host'" in tree.path("/etc/cfctl/config.toml").read_text()
        # The very same VM, which the new version knows, and which answers.
        assert status(tree) == up
        assert tree.run("cfctl", "adb", "phone", "shell", "echo $((6 * 7))").stdout.strip() == "42"

        refused = tree.run("apt-get", "remove", "-y", "-q", "cfctl", check=False)
        assert refused.returncode != 0
        assert "cvd-mtap-01" in refused.stdout + refused.stderr
        assert "cfctl host teardown --force" in refused.stdout + refused.stderr
        assert links(tree) == before
        assert tree.run("cfctl", "--version").returncode == 0
    disk = tree.path("/var/lib/cfctl/devices/phone/userdata.img")
    disk.write_bytes(b"photographs")
    home = tree.path("/home/ann/.local/state/cfctl/devices/mine")
    home.mkdir(parents=True)
    (home / "device.json").write_text("{}")
    with tree.path("/etc/passwd").open("a") as users:
        users.write("ann:x:1000:1000::/home/ann:/bin/sh\n")
    tree.path("/var/lib/cfctl/docker").mkdir()
    tree.run("dpkg", "--configure", "-a")
    tree.run("apt-get", "remove", "-y", "-q", "cfctl")
    assert links(tree) == {}, "stopped, with nothing up"
    assert "dns = 'host'" in tree.path("/etc/cfctl/config.toml").read_text()
    purged = tree.run("apt-get", "purge", "-y", "-q", "cfctl", "cfctl-host-resources", "cfctl-relay")
    assert "/var/lib/cfctl/devices/phone" in purged.stdout
    assert "/home/ann/.local/state/cfctl/devices/mine" in purged.stdout
    elsewhere = ("-not", "-path", "/packages/*", "-not", "-path", "/var/lib/cfctl/*")
    left = tree.run("find", "/", "-xdev", "-name", "*cfctl*", *elsewhere).stdout.split()
    assert {path.name for path in tree.path("/var/lib/cfctl").iterdir()} == {"devices"}
    assert sorted(left) == ["/home/ann/.local/state/cfctl", "/var/lib/cfctl"]
    assert disk.read_bytes() == b"photographs"
    assert not tree.path("/var/lib/cfctl/docker").exists()
    broken = tree.run("find", "/etc/systemd/system", "-xtype", "l", "-lname", "*cfctl*").stdout
    assert broken == ""


def test_upstreams_package_may_come_and_go(tree: Tree, packages: built.Built) -> None:
    install(tree, packages, "cfctl", "cfctl-host-resources")
    query = "/usr/lib/cuttlefish-common/bin/capability_query.py"
    upstream = tree.path("/packages/upstream")
    (upstream / "DEBIAN").mkdir(parents=True)
    (upstream / "DEBIAN/control").write_text(
        "Package: cuttlefish-base\nVersion: 1.57.0\nArchitecture: all\nMaintainer: nobody <n@example.org>\n"
        "Description: stands for upstream's\n"
    )
    theirs = upstream / query.lstrip("/")
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\necho theirs\n")
    theirs.chmod(0o755)
    tree.run("dpkg-deb", "--build", "/packages/upstream", "/packages/upstream.deb")
    tree.run("dpkg", "-i", "/packages/upstream.deb")
    assert tree.run(query).stdout == "theirs\n"
    tree.run("dpkg", "--purge", "cuttlefish-base")
    assert "qemu_cli" in tree.run(query).stdout
    tree.run("dpkg", "-i", "/packages/upstream.deb")
    tree.run("dpkg", "--purge", "cfctl-host-resources")
    assert tree.run(query).stdout == "theirs\n"
