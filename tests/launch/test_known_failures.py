"""Each known failure, with the text that its project prints, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cfctl.errors import CfctlError, HostLacks, LaunchFailed
from cfctl.launch import boot, diagnosis, known_failures
from cfctl.launch.known_failures import KNOWN, Log
from tests.launch.test_boot import log, record, state

__all__ = ["state"]

LAUNCH, SUPERVISOR, KERNEL = Log.LAUNCH, Log.SUPERVISOR, Log.KERNEL

#: (failure, log, text). "recorded": seen in a log; "constructed": put together from the source that is named.
CASES = [
    # recorded: QEMU 7.2 without /dev/kvm
    ("no-kvm", SUPERVISOR, "Could not access KVM kernel module: No such file or directory"),
    ("no-kvm", SUPERVISOR, "qemu-system-x86_64: -accel kvm: failed to initialize kvm: Permission denied"),
    # constructed: crosvm src/crosvm/sys/linux.rs; run_cvd validate.cpp
    ("no-kvm", SUPERVISOR, "crosvm: exiting with error 1: failed to open KVM device /dev/kvm: No such file"),
    ("no-kvm", LAUNCH, "# Add your user to the kvm group:"),
    ("group-missing", LAUNCH, "# Add your user to the cvdnetwork group:"),
    ("group-missing", LAUNCH, "Unable to open tun device: Permission denied"),
    # recorded: QEMU, as quoted in kernel and distribution mailing lists
    (
        "cid-in-use",
        SUPERVISOR,
        "qemu-system-x86_64: -device vhost-vsock-pci,guest-cid=3: vhost-vsock: unable to set guest cid: "
        "Address already in use",
    ),
    # constructed: crosvm devices/src/virtio/vhost/mod.rs
    ("cid-in-use", SUPERVISOR, "failed to set CID for guest: ioctl failed: Address already in use (os error 98)"),
    # constructed: run_cvd validate.cpp, QEMU net/tap-linux.c
    ("tap-busy", LAUNCH, "Unable to connect to tap interface: Device or resource busy"),
    (
        "tap-busy",
        SUPERVISOR,
        "qemu-system-x86_64: -netdev tap: could not configure /dev/net/tun (cvd-mtap-01): Device or resource busy",
    ),
    ("tap-missing", LAUNCH, "Tap interface does not exist: cvd-mtap-01"),
    # constructed: strerror(3), the embedded run_cvd, QEMU ui/vnc.c
    ("port-in-use", SUPERVISOR, "bind: Address already in use"),
    ("port-in-use", LAUNCH, "port 6520 on 127.0.0.1 cannot be used for ADB"),
    ("disk-full", LAUNCH, "write: No space left on device"),
    ("disk-full", LAUNCH, "Not enough space remaining in fs containing /home, wanted 8 GB"),
    # recorded: an arm64 kernel with an x86_64 busybox; constructed: U-Boot arch/arm/lib/image.c
    ("wrong-image", KERNEL, "[    2.237275] Failed to execute /init (error -8)"),
    ("wrong-image", KERNEL, "Starting init: /bin/sh exists but couldn't execute it (error -8)"),
    ("wrong-image", KERNEL, "Bad Linux ARM64 Image magic!"),
    ("wrong-image", LAUNCH, "/x/bin/crosvm: cannot execute: Exec format error"),
    ("bootloader-missing", LAUNCH, "File not found: /x/etc/bootloader_aarch64/bootloader.crosvm"),
    ("no-images", LAUNCH, "assemble_cvd: no images found in /x"),
    # recorded: the form of Rust's panics, before and since 1.89
    ("crosvm-panic", SUPERVISOR, "thread 'main' panicked at src/main.rs:10:5:"),
    ("crosvm-panic", SUPERVISOR, "thread 'vcpu0' (4711) panicked at devices/src/pci.rs:10:5:"),
    (
        "guest-panic",
        KERNEL,
        "[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
    ),
]


@pytest.mark.parametrize(("key", "where", "text"), CASES)
def test_each_text_has_its_cause(key: str, where: Log, text: str) -> None:
    texts = {where: ["something before", text, "something after"]}
    found = known_failures.match(texts)
    assert [entry.known.key for entry in found] == [key]
    assert found[0].line == text


def test_every_entry_has_a_case_and_a_source() -> None:
    assert {known.key for known in KNOWN} == {key for key, _, _ in CASES}
    for known in (*KNOWN, known_failures.BOOT_LOOP):
        assert known.source
        assert known.mend.format(name="phone", number=1, adb_port=6520, cid=3, home="/x")


def test_a_healthy_boot_has_no_cause() -> None:
    healthy = [
        "[    0.000000] Linux version 6.1",
        "init: starting service 'adbd'...",
        "VIRTUAL_DEVICE_BOOT_COMPLETED",
    ]
    assert known_failures.match(dict.fromkeys(Log, healthy)) == []


def test_what_the_guest_prints_about_itself_is_no_fault_of_the_host() -> None:
    assert known_failures.match({KERNEL: ["bind: Address already in use", "No space left on device"]}) == []


@pytest.mark.parametrize(
    ("text", "kind", "mend"),
    [
        ("# Add your user to the cvdnetwork group:", HostLacks, "sudo usermod -aG cvdnetwork $USER"),
        ("Could not access KVM kernel module: No such file or directory", HostLacks, "cfctl host doctor"),
        ("Tap interface does not exist: cvd-mtap-01", HostLacks, "sudo cfctl host setup --instances 1"),
        ("write: No space left on device", LaunchFailed, "df -h "),
        ("bind: Address already in use", LaunchFailed, "ss -ltnp 'sport = :6520'"),
        ("vhost-vsock: unable to set guest cid: Address already in use", LaunchFailed, "cid[=,]3"),
        ("gibberish", LaunchFailed, "launch_cvd --help"),
    ],
)
def test_the_error_names_what_mends_it(state: Path, text: str, kind: type[CfctlError], mend: str) -> None:
    device = record()
    device.home.mkdir(parents=True)
    (device.home / boot.LAUNCH_LOG).write_text(f"{text}\n")
    (device.home / "device.json").write_bytes(registry_encode(device))
    error = diagnosis.failed(device, boot.Watch(device, started=0), 255)
    assert type(error) is kind
    assert mend in (error.resolution or "")
    assert text in (error.details or "")


def registry_encode(device: object) -> bytes:
    import msgspec

    return msgspec.json.encode(device)


def test_a_disk_that_is_full_is_found_without_a_word_in_any_log(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = boot.Watch(record(), started=0)
    log(1, "[    0.0] Linux version 6.1\n")
    assert diagnosis.causes(record(), watch.slowest) == []
    monkeypatch.setattr(diagnosis, "_FULL_BYTES", 1 << 62)
    assert [entry.known.key for entry in diagnosis.causes(record(), watch.slowest)] == ["disk-full"]
