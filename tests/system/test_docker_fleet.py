"""Fleets: a file, real containers with real VMs, and a second engine behind SSH."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.schemas import conforms
from tests.system import dockerd
from tests.system import sandbox as sandboxes
from tests.system.docker_helpers import ask_adb, fails, leaves_nothing, programs
from tests.system.dockerd import Engine
from tests.system.sandbox import Sandbox

FARM = """
[devices.phone]
count = 3
memory_mb = 128

[devices.tablet]
memory_mb = 128
"""


def up(host: Sandbox, *args: str) -> dict[str, Any]:
    document: dict[str, Any] = host.json("docker", "up", "/tmp/farm.toml", *args, timeout=600)
    conforms(document, "fleet")
    return document


def write(host: Sandbox, text: str) -> None:
    host.run("sh", "-c", "cat >/tmp/farm.toml", stdin=text)


def shown(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(change["action"], change["object"]) for change in document["changes"]]


def ids(host: Sandbox, engine: Engine) -> dict[str, str]:
    return {one["name"]: engine.inspect(one["name"])["Id"] for one in host.json("docker", "list")["containers"]}


def test_a_fleet_of_four(engine: Engine) -> None:
    host = engine.box
    before = programs(host)
    write(host, FARM)
    planned = host.cfctl("docker", "up", "/tmp/farm.toml", "--dry-run", "--json", check=False)
    assert planned.returncode == 3
    plan = json.loads(planned.stdout)
    assert plan["state"] == "absent"
    everything = [("create", name) for name in ("phone-1", "phone-2", "phone-3", "tablet")]
    assert shown(plan) == everything
    assert engine.left()["containers"] == []

    assert shown(up(host, "--parallel", "2")) == everything
    listed = host.json("docker", "list")["containers"]
    assert sorted(one["adb"] for one in listed) == [[f"127.0.0.1:{port}"] for port in range(6520, 6524)]
    assert {one["devices"][0]["state"] for one in listed} == {"running"}
    assert {one["fleet"] for one in listed} == {"farm"}
    assert ask_adb(host, listed[3]["adb"][0], "echo", "there") == "there"

    again = up(host)
    assert (again["state"], again["changes"]) == ("ready", [])
    assert host.cfctl("docker", "up", "/tmp/farm.toml", "--dry-run").returncode == 0

    # One entry is changed: only its container is made anew, with its disks.
    made = ids(host, engine)
    host.cfctl("docker", "login", "tablet", "--", "touch", "kept")
    write(host, FARM + "cpus = 1\n")
    assert up(host)["changes"] == [
        {"action": "replace", "object": "tablet", "host": "default", "reason": "cpus is the default, not 1"}
    ]
    now = ids(host, engine)
    assert {name for name in made if made[name] != now[name]} == {"tablet"}
    host.cfctl("docker", "login", "tablet", "--", "ls", "kept")
    assert up(host)["changes"] == []

    # Two who boot a device at once do not stop each other: the second waits for the first.
    host.cfctl("docker", "stop", "phone-1")
    starts = [host.start(*host.cfctl_argv("docker", "start", "phone-1")) for _ in range(2)]
    assert [one.wait(120) for one in starts] == [0, 0]

    # What somebody has done by hand is seen, and mended.
    host.cfctl("docker", "stop", "phone-1")
    host.cfctl("docker", "unpublish", "phone-2")
    host.cfctl("docker", "rm", "phone-3")
    assert shown(up(host)) == [("start", "phone-1"), ("publish", "phone-2"), ("create", "phone-3")]
    assert shown(host.json("docker", "down", "/tmp/farm.toml")) == [("remove", name) for name in sorted(made)]
    leaves_nothing(engine, before)


def shells(**of: str) -> str:
    """Return a fleet of containers in which nothing is booted, each with lines of its own."""
    return "".join(f"[devices.{name}]\nboot = false\npublish = []\n{lines}\n" for name, lines in of.items())


def test_the_first_failure_stops_a_rollout(engine: Engine) -> None:
    host = engine.box
    # Nothing is begun after it, and the next one goes on there.
    write(host, shells(aa="", bb='host_package = "/nowhere"', cc=""))
    error = fails(host, 2, "up", "/tmp/farm.toml")
    assert "/nowhere" in error["brief"]
    assert sorted(ids(host, engine)) == ["aa"]
    write(host, shells(aa="", bb="", cc=""))
    assert shown(up(host)) == [("create", "bb"), ("create", "cc")]
    assert up(host)["changes"] == []

    # An update that fails half-way: what cannot be made anew stays as it is, and what comes after it too.
    before = ids(host, engine)
    host.cfctl("docker", "login", "bb", "--", "touch", "kept")
    changed = 'env = { COLOUR = "red" }'
    write(host, shells(aa=changed, bb='network = "nowhere"', cc=changed))
    error = fails(host, 2, "up", "/tmp/farm.toml")
    assert "nowhere" in error["brief"]
    after = ids(host, engine)
    assert {name for name in before if after[name] != before[name]} == {"aa"}
    write(host, shells(aa=changed, bb=changed, cc=changed))
    assert shown(up(host)) == [("replace", "bb"), ("replace", "cc")]
    host.cfctl("docker", "login", "bb", "--", "ls", "kept")
    assert up(host)["changes"] == []
    assert engine.inspect("bb")["Config"]["Labels"]["cf_instance"] == "2"

    # A name in the cache, and what it means by now.
    host.env["CFCTL_PATHS_CACHE"] = "/tmp/cache"
    host.run("sh", "-c", "mkdir /tmp/images; echo 1 >/tmp/images/super.img")
    host.json("images", "add", "/tmp/images", "--name", "nightly")
    named = shells(aa=changed, bb=changed, cc=f'{changed}\nimages = "nightly"')
    write(host, named)
    assert shown(up(host)) == [("replace", "cc")]
    assert up(host)["changes"] == []
    host.run("sh", "-c", "echo 2 >/tmp/images/super.img")
    host.json("images", "add", "/tmp/images", "--name", "nightly")
    assert shown(up(host)) == [("replace", "cc")]
    written = "cat /mnt/images/super.img; rm -f /mnt/images/super.img; ls /mnt/images"
    assert host.cfctl("docker", "login", "cc", "--", "sh", "-c", written).stdout == "2\n"
    kept = host.run("sh", "-c", "cat /tmp/cache/artifacts/*/tree/super.img")
    assert sorted(kept.stdout.split()) == ["1", "2"]
    host.cfctl("docker", "down", "/tmp/farm.toml")

    engine.docker("create", "--name", "b-good", dockerd.BASE, "true")
    write(host, "[devices.b-good]\nboot = false\npublish = []\n")
    assert fails(host, 1, "up", "/tmp/farm.toml")["code"] == "container-name-taken"
    engine.docker("rm", "b-good")
    assert shown(up(host)) == [("create", "b-good")]
    # A new image: its container is made anew.
    file = f"FROM {dockerd.TAG}\nLABEL new=1\n"
    engine.docker("build", "-t", dockerd.TAG, "-", stdin=file, env={"DOCKER_BUILDKIT": "0"})
    [change] = up(host)["changes"]
    assert (change["action"], change["reason"]) == ("replace", "the image cfctl is another by now")
    host.cfctl("docker", "down", "/tmp/farm.toml")
    dockerd.build_image(engine)


@contextlib.contextmanager
def rack(host: Sandbox, directory: Path) -> Iterator[Engine]:
    """Run another machine beside the sandbox: namespaces of its own, a cable between them, sshd and an engine."""
    with (
        sandboxes.sandbox(directory) as other,
        dockerd.running(other, "rack", subnet="172.18.0.1/16", kvm=False) as engine,
    ):
        cable = ("ip", "link", "add", "rack", "type", "veth", "peer", "name", "uplink", "netns", str(other.pid))
        subprocess.run(["nsenter", "-t", str(host.pid), "-n", *cable], check=True)
        for box, link, address in ((host, "rack", "10.99.0.1/24"), (other, "uplink", "10.99.0.2/24")):
            box.run("ip", "address", "add", address, "dev", link)
            box.run("ip", "link", "set", link, "up")
        sshd = serve_ssh(host, other)
        # What `docker system dial-stdio` talks to if nobody says otherwise.
        other.run("ln", "-sf", "/run/rack.sock", "/run/docker.sock")
        dockerd.build_image(engine)
        try:
            yield engine
        finally:
            # What was started inside ends with the sandbox; this is its shadow out here.
            sshd.kill()
            sshd.wait()


def serve_ssh(host: Sandbox, other: Sandbox) -> subprocess.Popen[str]:
    """Run sshd on the other machine, and let the sandbox's root in with a key; its home is the sandbox's own."""
    host.run("mkdir", "-p", "-m", "0700", "/tmp/home/.ssh")
    host.env["HOME"] = "/tmp/home"
    other.run("mkdir", "-p", "/run/sshd", "/tmp/ssh")
    # The sandbox has a user database of its own (a file of the sandbox's directory, not the machine's).
    other.run("sh", "-c", "echo sshd:x:105:65534::/run/sshd:/usr/sbin/nologin >>/etc/passwd")
    host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/home/.ssh/id_ed25519")
    other.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/ssh/host")
    key = host.run("cat", "/tmp/home/.ssh/id_ed25519.pub").stdout
    other.run("sh", "-c", "cat >/tmp/ssh/keys; chmod 600 /tmp/ssh/keys", stdin=key)
    known = other.run("cat", "/tmp/ssh/host.pub").stdout
    host.run("sh", "-c", "cat >/tmp/home/.ssh/known_hosts", stdin=f"10.99.0.2 {known}")
    options = ["UsePAM=no", "StrictModes=no", "AuthorizedKeysFile=/tmp/ssh/keys", "HostKey=/tmp/ssh/host"]
    options = [f"-o{option}" for option in (*options, "PermitRootLogin=yes", "PidFile=none")]
    sshd = other.start("/usr/sbin/sshd", "-D", "-f", "/dev/null", *options)
    deadline = time.monotonic() + 30
    while host.run("bash", "-c", "exec 3<>/dev/tcp/10.99.0.2/22", check=False).returncode:
        assert time.monotonic() < deadline, "sshd does not listen"
        time.sleep(0.1)
    return sshd


TWO_HOSTS = """
[hosts.here]
capacity = 1
[hosts.rack]
engine = "ssh://root@10.99.0.2"
capacity = 1
[devices.phone]
count = 2
"""


def test_an_engine_behind_ssh_takes_half_a_fleet(engine: Engine, tmp_path: Path) -> None:
    host = engine.box
    before = programs(host)
    with rack(host, tmp_path / "rack") as other:
        write(host, TWO_HOSTS)
        document = up(host)
        assert [(change["object"], change["host"]) for change in document["changes"]] == [
            ("phone-1", "here"),
            ("phone-2", "rack"),
        ]
        assert document["hosts"]["rack"] == "ssh://root@10.99.0.2"
        remote = ("--engine", "ssh://root@10.99.0.2")
        [one] = host.json("docker", "list", *remote)["containers"]
        assert one["name"] == "phone-2"
        # Another machine, another set of numbers: the first port was taken here, so it is published at another.
        assert one["numbers"] == [1]
        assert ask_adb(host, one["adb"][0], "uname", "-n") == "CUTTLEFISHCVD01"
        assert one["adb"] != host.json("docker", "list")["containers"][0]["adb"]
        assert host.cfctl("docker", "login", "phone-2", *remote, "--", "hostname").stdout == "phone-2\n"
        assert other.inspect("phone-2")["State"]["Running"]
        # What is on this machine cannot be mounted there; it says what can be done.
        for word in ("nightly", "/mnt/README.md"):
            error = fails(host, 2, "create", "more", "--host-package", word, *remote)
            assert error["code"] == "engine-elsewhere"
            assert "push-images --engine ssh://root@10.99.0.2 NAME" in error["resolution"]
        # The same engine by the name of a Docker context.
        host.run("docker", "context", "create", "rack", "--docker", "host=ssh://root@10.99.0.2")
        assert host.json("docker", "list", "--engine", "rack")["containers"][0]["name"] == "phone-2"
        by_context = {"DOCKER_HOST": "", "DOCKER_CONTEXT": "rack"}
        assert host.json("docker", "list", env=by_context)["containers"][0]["engine"] == "ssh://root@10.99.0.2"
        assert up(host)["changes"] == []
        host.cfctl("docker", "down", "/tmp/farm.toml")
        assert other.left() == {"containers": [], "volumes": [], "networks": []}
        leaves_nothing(engine, before)
