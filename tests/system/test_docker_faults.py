"""Containers when things go wrong: names, numbers, deaths, restarts, full disks, engines that are not there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from tests.schemas import conforms
from tests.system import dockerd
from tests.system.docker_helpers import boot, fails, leaves_nothing, programs, ssh_banner, wait_until
from tests.system.dockerd import Engine
from tests.system.sandbox import Sandbox


def test_names_that_are_taken(engine: Engine) -> None:
    host = engine.box
    before = programs(host)
    engine.docker("create", "--name", "stranger", dockerd.BASE, "true")
    for args in (("create", "stranger"), ("start", "stranger"), ("rm", "stranger"), ("home", "stranger")):
        error = fails(host, 1, *args)
        assert error["code"] == "container-name-taken"
        assert "not cfctl's" in error["brief"]
    # Labels are anybody's.
    for words in ("cfctl.request={}", "cfctl.request=x", "n_cf_instances=0", "cf_instance=abc", "cf_instance=500"):
        labels = ["cf_instance=1", "n_cf_instances=1", "cfctl.request={}", "cfctl.owner=root", words]
        if words == "cfctl.request={}":
            del labels[1]
        engine.docker(
            "create", "--name", "odd", *(part for one in labels for part in ("-l", one)), dockerd.BASE, "true"
        )
        listed = host.cfctl("docker", "list", "--json")
        assert json.loads(listed.stdout)["containers"] == []
        assert "odd: left out, its labels are not what cfctl writes" in listed.stderr
        for verb in ("status", "rm"):
            assert fails(host, 1, verb, "odd")["code"] == "container-name-taken"
        engine.docker("rm", "odd")
    host.cfctl("docker", "rm-all")
    assert engine.docker("ps", "-aq").stdout.strip(), "what is not ours was removed"
    engine.docker("rm", "stranger")

    host.cfctl("docker", "create", "phone")
    volumes = engine.left()["volumes"]
    error = fails(host, 1, "create", "phone")
    assert error["brief"] == "a container named 'phone' is there already, running"
    assert engine.left()["volumes"] == volumes
    assert fails(host, 1, "start", "tablet")["code"] == "no-such-container"
    # The engine takes the beginning of an id for a name; what has it is another's, or nobody's.
    beginning = engine.inspect("phone")["Id"][:8]
    assert fails(host, 1, "rm", beginning)["code"] == "no-such-container"
    host.cfctl("docker", "create", beginning)
    assert engine.inspect("phone")["State"]["Running"]
    host.cfctl("docker", "rm", beginning)
    nothing_surprises(engine)
    host.cfctl("docker", "rm", "phone")
    leaves_nothing(engine, before)


def nothing_surprises(engine: Engine) -> None:
    """Do to a container what people do; at the end it is gone, by other means than ours."""
    host = engine.box

    def phone() -> dict[str, Any]:
        [one] = host.json("docker", "list")["containers"]
        return dict(one)

    # Published again, the ports stay where they are; whether a device is up makes no difference.
    first = host.json("docker", "publish", "phone")["published"]
    assert host.json("docker", "publish", "phone")["published"] == first
    assert phone()["adb"] == ["127.0.0.1:6520"]
    assert (
        "is not an address of this machine" in fails(host, 2, "publish", "phone", "--address", "192.0.2.1")["brief"]
    )
    assert host.cfctl("docker", "unpublish", "phone", "--port", "9").stdout == "nothing was unpublished\n"
    # What the engine's way in is given, arrives; so does the end of it.
    sorting = ("docker", "login", "--exec", "phone", "--", "sh", "-c", "sort; echo done >&2; exit 7")
    done = host.cfctl(*sorting, stdin="b\na\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "a\nb\n", "done\n")
    # There is no device yet.
    error = fails(host, 3, "logs", "phone")
    assert error["brief"] == "no device has been booted in phone yet"
    assert "cfctl docker start phone" in error["resolution"]

    engine.docker("pause", "phone")
    assert phone()["state"] == "paused"
    assert "the container is paused" in host.cfctl("docker", "status", "phone", check=False).stdout
    assert host.cfctl("docker", "login", "phone", "--", "true", check=False).returncode == 3
    host.cfctl("docker", "stop", "phone")
    assert phone()["state"] == "running"

    engine.docker("rm", "-f", "phone")
    assert "phone was removed by other means" in host.cfctl("docker", "list").stderr


def test_wrong_calls(engine: Engine) -> None:
    host = engine.box
    assert fails(host, 1, "create", "phone", "--image", dockerd.BASE)["code"] == "image-unavailable"
    assert fails(host, 1, "create", "phone", "--image", "nobody/has:it")["code"] == "image-unavailable"
    assert fails(host, 2, "build", "--gpu", "voodoo")["code"] == "usage"
    assert fails(host, 2, "list", "--engine", "nosuchcontext")["code"] == "usage"
    # Neither a socket that is not there, nor a machine.
    for url in ("unix:///run/nobody.sock", "ssh://nobody@127.0.0.1:9", "tcp://127.0.0.1:9"):
        error = fails(host, 4, "list", "--engine", url)
        assert error["code"] == "engine-unreachable"
        assert url in error["brief"]
    # What is missing on the engine's machine is named, and nothing is left of the attempt.
    error = fails(host, 2, "create", "phone", "--network", "nowhere")
    assert "no network 'nowhere'" in error["brief"]
    assert engine.left() == {"containers": [], "volumes": [], "networks": []}
    assert host.run("find", "/var/lib/cfctl", "-type", "f").stdout == ""
    error = fails(host, 1, "build", "--base", "nobody/has:it", "--tag", "x")
    assert error["code"] in ("image-unavailable", "engine-refused")


def test_numbers_are_the_machines(engine: Engine) -> None:
    """Somebody beside the containers has 1; two creates at once get one each of the others."""
    host = engine.box
    host.run("mkdir", "-p", "/var/tmp/cvd/lock")
    lock = "/var/tmp/cvd/lock/local-instance-1.lock"
    holder = host.start("flock", lock, "sleep", "600")
    wait_until(lambda: host.run("flock", "-n", lock, "true", check=False).returncode != 0, "the lock is held")
    making = [host.start(*host.cfctl_argv("docker", "create", name), stderr=-1) for name in ("phone", "tablet")]
    for one in making:
        _, said = one.communicate(timeout=120)
        assert one.returncode == 0, said
    containers = host.json("docker", "list")["containers"]
    assert sorted(one["numbers"] for one in containers) == [[2], [3]]
    # cvd keeps a number by a byte, without a lock.
    host.run("sh", "-c", "printf I >/var/tmp/cvd/lock/local-instance-4.lock")
    # The engine would start it again for ever, if it were left to its restart policy.
    assert host.json("docker", "create", "third", "--restart", "always")["numbers"] == [5]
    # A stopped container's number is lent to nobody in a container, but a device outside may take it.
    host.cfctl("docker", "stop", "--container", "phone")
    number = next(one["numbers"][0] for one in containers if one["name"] == "phone")
    lock = f"/var/tmp/cvd/lock/local-instance-{number}.lock"
    # Waiting, not trying: the look below has it for a moment.
    other = host.start("flock", lock, "sleep", "600")
    wait_until(lambda: host.run("flock", "-n", lock, "true", check=False).returncode != 0, "the lock is held")
    error = fails(host, 1, "start", "phone")
    assert error["code"] == "number-taken"
    assert f"instance {number} of phone is another device's by now" in error["brief"]
    for one in (holder, other):
        one.kill()
        one.wait()
    host.run("sh", "-c", "for pid in $(pidof sleep); do [ $pid = 1 ] || kill $pid; done")
    host.cfctl("docker", "rm-all")


def test_published_ports_survive_the_container_the_engine_and_the_forwarder(engine: Engine) -> None:
    host = engine.box
    before = programs(host)
    host.cfctl("docker", "create", "phone")
    said = host.json("docker", "publish", "phone", "--port", "2022:22")
    conforms(said, "ports")
    assert said["published"] == [{"address": "127.0.0.1:2022", "inside": 22}]
    assert ssh_banner(host, 2022).startswith("SSH-2.0")
    listening = host.run("ss", "-Hltn", "sport = :2022").stdout.split()
    assert listening[3] == "127.0.0.1:2022"
    # Again is the same, and another is beside it.
    assert host.json("docker", "publish", "phone", "--port", "2022:22")["published"] == said["published"]
    taken = fails(host, 1, "publish", "phone", "--port", "2022:6520")
    assert "taken" in taken["brief"]

    # The container is killed and started again, under another address perhaps.
    engine.docker("kill", "phone")
    assert ssh_banner(host, 2022) == ""
    assert fails(host, 3, "publish", "phone")["code"] == "not-running"
    assert host.cfctl("docker", "login", "phone", check=False).returncode == 3
    engine.docker("start", "phone")
    wait_until(lambda: ssh_banner(host, 2022).startswith("SSH-2.0"), "the port works after the container's restart")

    # The engine too. Its containers end with it, as it is set up by default.
    engine.stop()
    error = fails(host, 4, "list")
    assert error["code"] == "engine-unreachable"
    engine.process = dockerd.start(host).process
    engine.docker("start", "phone")
    wait_until(lambda: ssh_banner(host, 2022).startswith("SSH-2.0"), "the port works after the engine's restart")

    # The worker, and then the whole forwarder, as after a reboot of this machine.
    workers = [pid for pid, args in host.processes().items() if args.endswith("--worker")]
    host.run("kill", "-9", *map(str, workers))
    wait_until(lambda: ssh_banner(host, 2022).startswith("SSH-2.0"), "the supervisor starts another worker")
    forwarders = [pid for pid, args in host.processes().items() if "cfctl.docker.forward" in args]
    host.run("kill", "-9", *map(str, forwarders), check=False)
    listed = host.json("docker", "list")["containers"][0]
    assert listed["forwarding"] is False
    assert "forwarder is gone" in host.cfctl("docker", "list").stdout
    assert host.json("docker", "publish", "phone", "--port", "2022:22")["published"] == said["published"]
    assert ssh_banner(host, 2022).startswith("SSH-2.0")

    assert host.json("docker", "unpublish", "phone")["unpublished"] == said["published"]
    wait_until(lambda: host.run("ss", "-Hltn", "sport = :2022").stdout == "", "nobody listens")
    host.cfctl("docker", "rm", "phone")
    leaves_nothing(engine, before)


def test_a_killed_container_boots_its_device_again(engine: Engine) -> None:
    host = engine.box
    host.cfctl("docker", "create", "phone", "--restart", "always")
    boot(host, "phone")
    # From inside, as a crash would: `docker kill` counts as somebody's wish.
    pid = engine.inspect("phone")["State"]["Pid"]
    host.run("kill", "-9", str(pid))
    wait_until(lambda: engine.inspect("phone")["RestartCount"] == 1, "the engine starts it again")

    def up() -> bool:
        devices = host.json("docker", "list")["containers"][0]["devices"]
        return [device["state"] for device in devices] == ["running"]

    # Whoever asks for it waits for the boot that the container has begun.
    assert host.json("docker", "start", "phone", timeout=300)["state"] == "running"
    wait_until(up, "the device runs", 120)
    # After this the engine leaves it alone; who starts it boots its device, once, and waits for it.
    engine.docker("kill", "phone")
    said = host.cfctl("docker", "start", "phone", timeout=300)
    assert "phone is running" in said.stdout
    host.cfctl("docker", "rm", "phone")


def test_create_is_killed_and_done_again(engine: Engine) -> None:
    """The client dies, then the engine, in the middle of a create: what is left is ours, and goes with rm."""
    host = engine.box
    before = programs(host)
    creating = host.start(*host.cfctl_argv("docker", "create", "phone"))
    wait_until(lambda: bool(engine.left()["containers"]), "the container is there")
    creating.kill()
    creating.wait()
    kill_inside(host, "docker create")
    assert fails(host, 1, "create", "phone")["code"] == "container-name-taken"
    host.cfctl("docker", "rm", "phone")
    leaves_nothing(engine, before)

    creating = host.start(*host.cfctl_argv("docker", "create", "phone", "--json"), stdout=-1, stderr=-1)
    wait_until(lambda: bool(engine.left()["containers"]), "the container is there")
    engine.stop()
    said, _ = creating.communicate(timeout=120)
    assert creating.returncode != 0
    conforms(json.loads(said), "error")
    engine.process = dockerd.start(host).process
    if engine.left()["containers"] or engine.left()["volumes"]:
        host.cfctl("docker", "rm", "phone")
    host.cfctl("docker", "create", "phone")
    host.cfctl("docker", "rm", "phone")
    leaves_nothing(engine, before)

    # One that was killed while it made the layers over the images has left a container that holds them.
    engine.docker("create", "-l", "cfctl.helper=phone", "-v", "cfctl.layers-phone:/layers", dockerd.BASE, "true")
    host.cfctl("docker", "rm", "phone")
    leaves_nothing(engine, before)

    # The engine asks a container to end once, here before its Python can hear, and waits a minute before it kills.
    host.run("mkdir", "/tmp/slow")
    slow = "import pathlib, time\npathlib.Path('/slow/begun').touch()\ntime.sleep(3)\n"
    host.run("sh", "-c", "cat >/tmp/slow/sitecustomize.py", stdin=slow)
    engine.docker("run", "-d", "--name", "slow", "-v", "/tmp/slow:/slow", "-e", "PYTHONPATH=/slow", dockerd.TAG)
    wait_until(lambda: host.run("test", "-e", "/tmp/slow/begun", check=False).returncode == 0, "Python is starting")
    engine.docker("kill", "--signal", "TERM", "slow")
    assert engine.docker("wait", "slow").stdout.strip() == "143"
    engine.docker("rm", "-v", "slow")


def test_layers_are_of_one_container_and_one_creation(engine: Engine) -> None:
    host = engine.box
    for name in ("first", "second"):
        host.run("sh", "-c", f"mkdir /tmp/{name} && echo {name} >/tmp/{name}/super.img")
    # Its home was once the place of the layer over the other's images.
    host.cfctl("docker", "create", "phone-images")
    engine.docker("exec", "phone-images", "sh", "-c", "echo disk >~vsoc-01/disk")
    assert fails(host, 1, "rm", "phone")["code"] == "no-such-container"

    def images() -> str:
        return engine.docker("exec", "phone", "sh", "-c", "cd /mnt/images && grep -r .").stdout

    host.cfctl("docker", "create", "phone", "--images", "/tmp/first")
    assert images() == "super.img:first\n"
    engine.docker("exec", "phone", "sh", "-c", "echo written >/mnt/images/super.img")
    # Removed by other means, its layers stay: they are of other images than the next one's.
    engine.docker("rm", "-f", "phone")
    host.cfctl("docker", "create", "phone", "--images", "/tmp/second")
    assert images() == "super.img:second\n"
    host.cfctl("docker", "rm", "phone")
    assert engine.docker("exec", "phone-images", "cat", "/home/vsoc-01/disk").stdout == "disk\n"
    host.cfctl("docker", "rm", "phone-images")
    assert engine.left() == {"containers": [], "volumes": [], "networks": []}


def test_a_damaged_record_stands_in_nobodys_way(engine: Engine) -> None:
    """As a disk that is full, or a machine that loses power, leaves one."""
    host = engine.box
    before = programs(host)
    for name in ("phone", "tablet"):
        host.cfctl("docker", "create", name)
        host.cfctl("docker", "publish", name)
    kept = host.run("find", "/var/lib/cfctl/docker", "-name", "phone").stdout.strip()
    host.run("truncate", "-s0", f"{kept}/record.json")
    listed = host.cfctl("docker", "list", "--json")
    assert listed.stderr.count("phone/record.json cannot be read; what was published of it is forgotten") == 1
    phone, tablet = json.loads(listed.stdout)["containers"]
    assert (phone["adb"], tablet["adb"]) == ([], ["127.0.0.1:6521"])
    assert host.cfctl("ps").returncode == 0
    # What it mounts might be pruned: that one asks for a whole one.
    assert "record.json cannot be read" in host.cfctl("images", "prune", check=False).stderr
    host.cfctl("docker", "login", "phone", "--", "true")
    host.run("truncate", "-s0", f"{kept}/id_ecdsa")
    host.cfctl("docker", "login", "phone", "--", "true")
    published = host.json("docker", "publish", "phone")["published"]
    assert [port["inside"] for port in published] == [6520]
    assert host.cfctl("docker", "logs", "phone", "--which", "container", "-n", "0").stdout == ""
    host.run("truncate", "-s9", f"{kept}/record.json")
    host.cfctl("docker", "rm", "phone", "tablet")
    leaves_nothing(engine, before)


#: Between a client and its engine: holds the first request for a container until it is told, and loses it then.
_LOSING = """
import socket, sys, threading
engine, here = sys.argv[1:]
first = threading.Lock()

def carry(source, sink):
    while data := source.recv(65536):
        if b"/containers/create" in data[:200] and first.acquire(blocking=False):
            print("held", flush=True)
            sys.stdin.readline()
            break
        sink.sendall(data)
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

server = socket.socket(socket.AF_UNIX)
server.bind(here)
server.listen()
print("listens", flush=True)
while True:
    client = server.accept()[0]
    other = socket.socket(socket.AF_UNIX)
    other.connect(engine)
    threading.Thread(target=carry, args=(client, other), daemon=True).start()
    threading.Thread(target=carry, args=(other, client), daemon=True).start()
"""


def test_two_that_want_one_name(engine: Engine) -> None:
    """The slower one fails when the quicker one's container is there already: it removes nothing of that."""
    host = engine.box
    slow = "/tmp/slow.sock"
    between = host.start("python3", "-c", _LOSING, engine.url.removeprefix("unix://"), slow, stdin=-1, stdout=-1)
    assert between.stdin is not None
    assert between.stdout is not None
    assert between.stdout.readline() == "listens\n"
    late = host.start(*host.cfctl_argv("docker", "create", "phone"), env={"DOCKER_HOST": f"unix://{slow}"}, stderr=-1)
    assert between.stdout.readline() == "held\n"
    host.cfctl("docker", "create", "phone")
    between.stdin.write("\n")
    between.stdin.flush()
    said = late.communicate(timeout=120)[1]
    assert late.returncode == 1
    assert "the engine went away while it was asked to make container phone" in said
    kill_inside(host, "/containers/create")
    between.communicate(timeout=60)
    assert engine.inspect("phone")["State"]["Running"]
    host.cfctl("docker", "login", "phone", "--", "true")
    host.cfctl("docker", "rm", "phone")
    assert engine.left() == {"containers": [], "volumes": [], "networks": []}


def kill_inside(host: Sandbox, words: str) -> None:
    """Kill what nsenter has started inside: killing nsenter leaves it running."""
    for pid, args in host.processes().items():
        if words in args:
            host.run("kill", "-9", str(pid), check=False)


def test_push_goes_on_where_it_was_cut_off(engine: Engine, host_package: Path) -> None:
    host = engine.box
    host.cfctl("docker", "create", "phone")
    images = "/tmp/images"
    host.run("mkdir", images)
    host.run("dd", "if=/dev/urandom", f"of={images}/super.img", "bs=1M", "count=96")
    host.run("sh", "-c", f"echo gfxstream=supported >{images}/android-info.txt")
    pushing = host.start(*host.cfctl_argv("docker", "push-images", "phone", "--images", images), stderr=-1)
    home = host.cfctl("docker", "home", "phone").stdout.strip()

    def arrived() -> int:
        found = host.run("sh", "-c", f"stat -c %s {home}/.cfctl-incoming/*", check=False).stdout.split()
        return max(map(int, found), default=0)

    wait_until(lambda: arrived() > 4 << 20, "some of it has arrived")
    kill_inside(host, "push-images")
    pushing.kill()
    pushing.communicate()
    there = arrived()
    assert 0 < there < 96 << 20, "it was to be cut off half-way"
    pushed = host.json("docker", "push-images", "phone", "--images", images)
    conforms(pushed, "pushed")
    sizes = {one["name"]: (one["size"], one["sent"]) for one in pushed["pushed"]}
    assert sizes["super.img"][0] == 96 << 20
    assert sizes["super.img"][1] <= (96 << 20) - there
    ours = host.run("sha256sum", f"{images}/super.img").stdout.split()[0]
    theirs = host.cfctl("docker", "login", "phone", "--", "sha256sum", "super.img").stdout.split()[0]
    assert theirs == ours
    # There already: nothing is sent.
    again = host.json("docker", "push-images", "phone", "--images", images)["pushed"]
    assert [one["sent"] for one in again] == [0, 0]
    assert fails(host, 2, "push-images", "phone")["code"] == "usage"
    assert fails(host, 2, "push-images", "phone", "--images", "/nowhere")["code"] == "usage"

    # A host package, packed on the way, becomes what `start` boots.
    package = str(host_package)
    host.json("docker", "push-images", "phone", "--host-package", package)
    device = host.json("docker", "start", "phone", timeout=300)
    assert device["host_package"] == "/home/vsoc-01"
    assert device["state"] == "running"
    host.cfctl("docker", "rm", "phone")


def test_a_push_that_finds_no_room(engine: Engine) -> None:
    host = engine.box
    # The home is a small disk of its own: a share hides nothing, so the volume is made beforehand.
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=24m", "cfctl-phone")
    host.cfctl("docker", "create", "phone")
    host.run("mkdir", "/tmp/images")
    host.run("dd", "if=/dev/urandom", "of=/tmp/images/super.img", "bs=1M", "count=40")
    error = fails(host, 1, "push-images", "phone", "--images", "/tmp/images")
    assert error["brief"] == "there is no room for it in phone"
    assert "Nothing was sent" in error["details"]
    # Room that somebody else takes in the meantime.
    host.run("dd", "if=/dev/urandom", "of=/tmp/images/super.img", "bs=1M", "count=20")
    host.cfctl("docker", "login", "phone", "--", "sh", "-c", "(sleep 1; true) & head -c 12m /dev/zero >filler")
    error = fails(host, 1, "push-images", "phone", "--images", "/tmp/images")
    assert "room" in error["brief"]
    host.cfctl("docker", "login", "phone", "--", "rm", "filler")
    assert host.json("docker", "push-images", "phone", "--images", "/tmp/images")["pushed"][0]["size"] == 20 << 20
    host.cfctl("docker", "rm", "phone")


def test_the_cache_is_mounted_with_a_writable_layer(engine: Engine, host_package: Path) -> None:
    """An archive: unpacked once, mounted, never written to, and not pruned while a container is there."""
    host = engine.box
    before = programs(host)
    host.env["CFCTL_PATHS_CACHE"] = "/tmp/cache"
    host.run("tar", "-C", host_package, "-czf", "/tmp/cvd-host_package.tar.gz", ".")
    host.run("sh", "-c", "mkdir /tmp/images; echo x >/tmp/images/super.img")
    host.cfctl("images", "add", "/tmp/images", "--name", "nightly")
    given = ("--host-package", "/tmp/cvd-host_package.tar.gz")
    assert "does not exist" in fails(host, 2, "create", "phone", "--host-package", "/nowhere")["brief"]
    assert "nor in the cache" in fails(host, 2, "create", "phone", "--images", "weekly")["brief"]
    host.cfctl("docker", "create", "phone", *given, "--share", "/tmp:/mnt/tmp:ro")

    def inside(command: str) -> str:
        return host.cfctl("docker", "login", "phone", "--", "sh", "-c", command, check=False).stdout

    assert inside("echo x >/mnt/host-package/new; cat /mnt/host-package/new") == "x\n"
    assert inside("touch /mnt/tmp/x || echo refused") == "refused\n"
    assert host.run("find", "/tmp/cache/artifacts", "-name", "new").stdout == ""
    device = host.json("docker", "start", "phone", timeout=300)
    assert device["host_package"] == "/mnt/host-package"

    def prune() -> list[str | None]:
        document = host.json("images", "prune")
        conforms(document, "images-pruned")
        return sorted(entry["name"] or "package" for entry in document["removed"])

    assert prune() == ["nightly"]
    host.cfctl("docker", "stop", "--container", "phone")
    assert prune() == []
    engine.stop()
    refused = host.cfctl("images", "prune", "--json", check=False)
    assert refused.returncode == 4
    error = json.loads(refused.stdout)["error"]
    assert f"the engine at {engine.url} does not say" in error["brief"]
    assert "Nothing was removed" in error["details"]
    engine.process = dockerd.start(host).process
    host.cfctl("docker", "rm", "phone")
    assert prune() == ["package"]
    leaves_nothing(engine, before)


def test_the_functions_of_old(engine: Engine) -> None:
    """compat.sh under bash: the names and options of upstream's functions."""
    host = engine.box
    host.run(
        "sh",
        "-c",
        f"printf '#!/bin/sh\\nexec {' '.join(host.cfctl_argv())} \"$@\"\\n' >/tmp/cfctl; chmod +x /tmp/cfctl",
    )
    script = """
set -e
source /mnt/cfctl/docker/compat.sh
cf_docker_create -n 2 -v -m/tmp:stuff phone
cf_login_phone sh -c 'echo "two words"; ls -d stuff'
cf_gethome_phone
cf_docker_list
cf_docker_rm phone
! declare -F cf_login_phone
"""
    env = {"PATH": f"/tmp:{os.environ['PATH']}"}
    said = host.run("bash", "-c", script, env=env).stdout
    assert "two words\nstuff\n" in said
    assert re.search(r"^phone +running +- +1,2 ", said, re.MULTILINE)
    assert engine.left()["containers"] == []
    done = host.run("bash", "/mnt/cfctl/docker/compat.sh", "docker_create", "--colour", "x", env=env, check=False)
    assert done.returncode == 2
    assert "no option --colour" in done.stderr
