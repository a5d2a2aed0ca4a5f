"""Archives as host packages: unpacked once, really booted, told about, pruned; and what is refused."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import struct
from pathlib import Path

import pytest

from cfctl.launch.generation import Generation
from tests import generations, standins
from tests.artifacts import archives
from tests.artifacts.test_guest import boot_image, kernel
from tests.schemas import conforms
from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import leaves_nothing, refused

CACHE = "/tmp/cache"


@pytest.fixture
def host(sandbox: Sandbox) -> Sandbox:
    """Give a host whose network serves two instances, with a cache of its own."""
    sandbox.cfctl("host", "setup", "--instances", "2")
    sandbox.env["CFCTL_PATHS_CACHE"] = CACHE
    return sandbox


def inside(sandbox: Sandbox, path: str) -> Path:
    """Return a path of the sandbox as it is seen from here."""
    return Path(f"/proc/{sandbox.pid}/root{path}")


def pack(sandbox: Sandbox, directory: str, archive: str) -> str:
    """Pack a directory inside."""
    sandbox.run("tar", "-C", directory, "-czf", archive, ".")
    return archive


def standin(sandbox: Sandbox, fault: str = "none", name: str = "cvd-host_package.tar.gz") -> str:
    """Write a packed host package; return its path inside."""
    standins.write(inside(sandbox, "/tmp") / f"source-{fault}", fault)
    return pack(sandbox, f"/tmp/source-{fault}", f"/tmp/{name}")


def test_roots_umask_closes_the_systems_cache_to_nobody(sandbox: Sandbox) -> None:
    host, caches = sandbox, "/var/cache/cfctl"
    # As on a host where cfctl has never run.
    host.run("mount", "-t", "tmpfs", "tmpfs", "/var/cache")
    archive = standin(host)
    host.cfctl("host", "setup", "--instances", "2")
    cfctl = shlex.join(host.cfctl_argv())
    for verb in (f"images add {archive} --name nightly", "launch phone --host-package nightly"):
        host.run("sh", "-c", f"umask 077; {cfctl} {verb}")
    modes = host.run("sh", "-c", f"cd {caches}; stat -c '%a %n' . *; stat -c %a artifacts/.locks").stdout
    assert modes.split("\n")[:-1] == ["755 .", "755 artifacts", "755 boot-times", "755 flags", "755"]
    host.cfctl("launch", "tablet", "--host-package", "nightly", user="tester")
    # Closed by hand, it is as if it were empty; or the error says so.
    host.run("chmod", "700", caches)
    assert host.json("images", "list", user="tester")["images"] == []
    assert "nor in the cache" in refused(host, "launch", "--host-package", "nightly", code=2, user="tester")["brief"]
    error = refused(host, "launch", "third", code=4, user="tester")
    assert error["resolution"] == f"Let them in: sudo chmod a+rx {caches}"
    # On NFS root is nobody, and a home may be closed to it.
    host.run("chmod", "700", "/home/tester")
    nobody = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
    host.run(*nobody, *host.cfctl_argv("images", "prune"))


def test_a_packed_package_really_boots(host: Sandbox, host_package: Path) -> None:
    archive = pack(host, str(host_package), "/tmp/cvd-host_package.tar.gz")
    events = [
        json.loads(line)
        for line in host.cfctl("launch", "phone", "--host-package", archive, "--events").stdout.splitlines()
    ]
    for event in events:
        conforms(event, "event")
    titles = [event["title"].split()[0] for event in events if event["event"] == "step"]
    assert titles == ["read", "unpack", "boot"]
    assert any(event["event"] == "progress" and event["done"] > 0 for event in events)
    device = events[-1]["device"]
    assert device["state"] == "running"
    assert device["host_package"].startswith(f"{CACHE}/artifacts/")
    assert host.cfctl("adb", "phone", "shell", "uname", "-s").stdout.strip() == "Linux"
    host.run("adb", "kill-server")

    entry = host.json("images", "list")["images"][0]
    assert entry["kinds"] == ["host-package", "images"] or entry["kinds"] == ["host-package"]
    # What a device uses stays, and is what the next launch takes, by a part of its hash.
    assert host.json("images", "prune") == {"removed": [], "dry_run": False}
    host.cfctl("rm", "--force", "phone")
    done = host.cfctl("launch", "again", "--host-package", entry["id"][:10])
    assert "unpack" not in done.stderr
    host.cfctl("rm", "--force", "again")
    assert host.cfctl("images", "prune", "--dry-run", check=False).returncode == 3
    pruned = host.json("images", "prune")
    conforms(pruned, "images-pruned")
    assert [gone["id"] for gone in pruned["removed"]] == [entry["id"]]
    assert host.run("ls", "-A", f"{CACHE}/artifacts").stdout.split() == [".locks", ".seen"]
    leaves_nothing(host)


def test_names_and_another_users_cache(host: Sandbox) -> None:
    del host.env["CFCTL_PATHS_CACHE"]
    host.run("mount", "-t", "tmpfs", "tmpfs", "/var/cache/cfctl")
    added = host.json("images", "add", standin(host), "--name", "nightly")
    conforms(added, "images")
    assert added["images"][0]["name"] == "nightly"
    listed = host.cfctl("images", "list", user="tester").stdout
    assert "nightly" in listed
    device = host.json("launch", "mine", "--host-package", "nightly", user="tester")
    assert device["host_package"] == added["images"][0]["path"]
    # Root sees what its users' devices need.
    assert host.json("images", "prune")["removed"] == []
    host.cfctl("rm", "--force", "mine", user="tester")
    assert len(host.json("images", "prune")["removed"]) == 1
    error = refused(host, "launch", "--host-package", "nightly", code=2)
    assert error["brief"] == "'nightly' is neither a file or directory, nor in the cache"


def test_images_of_a_zip_are_the_devices_own(host: Sandbox) -> None:
    package = standin(host)
    archives.images(inside(host, "/tmp") / "img.zip")
    device = host.json("launch", "phone", "--host-package", package, "--images", "/tmp/img.zip")
    home = device["home"]
    argv = host.run("cat", f"{home}/argv").stdout
    assert f"--system_image_dir={home}/images" in argv
    assert argv.split()[-1] == f"{home}/parent/cvd"
    assert host.run("stat", "-c", "%s", "-L", f"{home}/images/super.img").stdout.strip() == str((8 << 20) + 4)
    host.run("rm", "/tmp/img.zip", package)
    assert host.json("restart", "phone")["state"] == "running"
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)


def test_file_capabilities_are_kept(host: Sandbox) -> None:
    standins.write(inside(host, "/tmp") / "plain", "none")
    cvdalloc = inside(host, "/tmp") / "plain/bin/cvdalloc"
    cvdalloc.write_text("#!/bin/sh")
    cvdalloc.chmod(0o755)
    # cap_net_admin=+ep, as a VFS_CAP_REVISION_2 of linux/capability.h with the effective bit.
    os.setxattr(cvdalloc, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 12, 0, 0, 0))
    home = host.json("launch", "phone", "--host-package", "/tmp/plain")["home"]
    assert host.run("readlink", f"{home}/host_package/bin/cvdalloc").stdout.strip() == "/tmp/plain/bin/cvdalloc"
    assert host.run("readlink", f"{home}/host_package/bin/run_cvd", check=False).stdout == ""
    host.cfctl("rm", "--force", "phone")


def test_a_builds_variables(host: Sandbox) -> None:
    generations.write(inside(host, "/tmp") / "out/host/linux-x86", Generation.CLASSIC)
    product = inside(host, "/tmp") / "out/target/product/vsoc"
    product.mkdir(parents=True)
    (product / "super.img").touch()
    env = {"ANDROID_HOST_OUT": "/tmp/out/host/linux-x86", "ANDROID_PRODUCT_OUT": "/tmp/out/target/product/vsoc"}
    done = host.cfctl("launch", "phone", env=env)
    assert "Host package: /tmp/out/host/linux-x86 (from $ANDROID_HOST_OUT)." in done.stderr
    assert "Images: /tmp/out/target/product/vsoc (from $ANDROID_PRODUCT_OUT)." in done.stderr
    assert host.json("status", "phone")["host_package"] == "/tmp/out/host/linux-x86"
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)


def test_images_without_a_package(host: Sandbox) -> None:
    archives.images(inside(host, "/tmp") / "img.zip")
    assert refused(host, "launch", "--images", "/tmp/img.zip", code=2)["brief"] == "--images needs a host package"
    leaves_nothing(host)


def test_images_with_the_embedded_package(host: Sandbox, host_package: Path) -> None:
    archives.images(inside(host, "/tmp") / "img.zip")
    error = refused(host, "launch", "--host-package", str(host_package), "--images", "/tmp/img.zip", code=2)
    assert error["brief"] == "the embedded Linux guest takes no --images"
    leaves_nothing(host)


def test_the_wrong_processor(host: Sandbox) -> None:
    source = inside(host, "/tmp") / "arm"
    (source / "bin").mkdir(parents=True)
    elf = bytearray(b"\x7fELF\x02\x01\x01" + bytes(57))
    struct.pack_into("<HH", elf, 16, 2, 183)
    (source / "bin/launch_cvd").write_bytes(bytes(elf))
    (source / "bin/launch_cvd").chmod(0o755)
    error = refused(host, "launch", "--host-package", "/tmp/arm", code=1)
    assert error["code"] == "wrong-processor"
    assert error["brief"] == "host package /tmp/arm is for aarch64, and this host is x86_64"
    assert "aosp_cf_x86_64_phone" in error["resolution"]

    package = standin(host)
    boot = boot_image(gzip.compress(kernel("aarch64")))
    archives.zip_(inside(host, "/tmp") / "img.zip", ("boot.img", boot), ("super.img", b"1"))
    error = refused(host, "launch", "--host-package", package, "--images", "/tmp/img.zip", code=1)
    assert error["brief"].endswith("is for aarch64, and this host is x86_64")
    assert "--vm_manager=qemu_cli" in error["resolution"]
    leaves_nothing(host)


def test_a_cache_without_room(host: Sandbox) -> None:
    inside(host, CACHE).mkdir()
    host.run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", CACHE)
    source = standins.write(inside(host, "/tmp") / "big", "none")
    host.run("sh", "-c", "head -c 8000000 /dev/urandom >/tmp/big/bin/crosvm")
    assert source
    archive = pack(host, "/tmp/big", "/tmp/big.tar.gz")
    error = refused(host, "launch", "--host-package", archive, code=4)
    assert error["brief"] == f"there is no room to unpack {archive}"
    assert "cfctl images prune" in error["resolution"]
    assert host.run("sh", "-c", f"ls -d {CACHE}/artifacts/.unpack* 2>/dev/null", check=False).stdout == ""
    leaves_nothing(host)


def test_an_interrupt_while_unpacking(host: Sandbox) -> None:
    standins.write(inside(host, "/tmp") / "big", "none")
    host.run("sh", "-c", "head -c 60000000 /dev/urandom >/tmp/big/bin/crosvm")
    archive = pack(host, "/tmp/big", "/tmp/big.tar.gz")
    argv = ["env", "--default-signal=INT", *host.cfctl_argv("images", "add", archive)]
    adding = host.start(*argv)
    unpacking = f"until ls -d {CACHE}/artifacts/.unpack-*/tree; do sleep 0.01; done"
    host.run("timeout", "60", "sh", "-c", unpacking)
    host.run("pkill", "-INT", "-f", "cfctl images add")
    assert adding.wait(30) == 130
    assert host.run("sh", "-c", f"ls -d {CACHE}/artifacts/.unpack* 2>/dev/null", check=False).stdout == ""
    assert host.json("images", "list") == {"images": []}


def test_relative_paths_in_flags(host: Sandbox) -> None:
    package = standin(host)
    (inside(host, "/tmp") / "my.img").touch()
    flags = ("--", "--system_image_dir=nowhere")
    done = host.cfctl("launch", "phone", "--host-package", package, *flags, check=False)
    assert done.returncode == 2
    assert "--system_image_dir=nowhere: there is no nowhere in /" in done.stderr
    host.cfctl("launch", "phone", "--host-package", package, "--", "--system_image_dir=tmp")
    assert "--system_image_dir=/tmp" in host.run("cat", "/var/lib/cfctl/devices/phone/argv").stdout
    host.cfctl("rm", "--force", "phone")


def test_a_launcher_that_does_not_tell_its_flags(host: Sandbox) -> None:
    package = standin(host, "mute")
    host.cfctl("launch", "phone", "--host-package", package, "--", "--whatever=1")
    argv = host.run("cat", "/var/lib/cfctl/devices/phone/argv").stdout
    assert "--report_anonymous_usage_stats=n" in argv
    assert "--whatever=1" in argv
    host.cfctl("rm", "--force", "phone")
    leaves_nothing(host)
