"""The guest: a distribution kernel, and an initramfs with busybox, a few modules and adbd, made here.

An image is a directory with ``kernel``, ``initramfs`` and ``image.json``, on x86 with ``kernel.fast`` too; its name
is a hash of what it is made by.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import arch as arches
from cfctl import distro, elf, locks, paths
from cfctl.errors import CfctlError, GuestImageUnavailable
from cfctl.guest import cpio, kernel
from cfctl.guest.debian import PrivateApt
from cfctl.steps import step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.arch import Arch

_HERE = Path(__file__).parent

#: What decides what an image looks like; a change of any makes another image.
_MADE_BY = ("cpio.py", "debian.py", "../elf.py", "image.py", "init", "kernel.py")

#: What init loads, with what they depend on: before it looks for network cards, and when the guest is up.
_EARLY_MODULES = ("virtio_pci", "virtio_net", "virtio_blk")
#: The power button is ACPI's on x86 and a pin of the machine on ARM.
_LATE_MODULES = ("virtio_console", "button", "gpio_pl061", "gpio_keys", "evdev", "virtio_balloon", "virtio_input")

#: What the guest cannot do without.
_APPLETS = {
    *("cat", "chmod", "dd", "echo", "ifconfig", "insmod", "ip", "login", "mkdir", "mkfifo", "mount", "poweroff"),
    *("setsid", "sh", "sleep", "sync", "tail", "tr", "udhcpc", "umount", "usleep"),
}


@dataclass(frozen=True, slots=True)
class Image:
    """A guest that can be booted.

    :param directory: where it lies; not to be changed.
    """

    directory: Path

    @property
    def kernel(self) -> Path:
        """The kernel as the distribution has it. Booted by its own first stage, it knows of the VGA screen."""
        return self.directory / "kernel"

    @property
    def fast_kernel(self) -> Path:
        """The kernel without its first stage, where it can be had: half a second faster, and without a screen."""
        fast = self.directory / "kernel.fast"
        return fast if fast.is_file() else self.kernel

    @property
    def files(self) -> list[Path]:
        """All files; the description is the last."""
        return [*dict.fromkeys((self.kernel, self.fast_kernel, self.initramfs, self.description))]

    @property
    def initramfs(self) -> Path:
        """What QEMU gets as ``-initrd``."""
        return self.directory / "initramfs"

    @property
    def description(self) -> Path:
        """The packages that it was made from, as JSON; written last, so an image that has it is whole."""
        return self.directory / "image.json"

    @property
    def arch(self) -> Arch:
        """The processor that it is for.

        :raises CfctlError: if its description is damaged, or names one that Cuttlefish does not run on.
        """
        try:
            loaded = json.loads(self.description.read_text())
            # Images made before there was a choice are for the host they were made on.
            name = str(loaded.get("arch", arches.host().name))
        except (OSError, ValueError, AttributeError) as exc:
            raise CfctlError(
                f"{self.description} is damaged", str(exc), "Build the package anew: cfctl guest build DIR"
            ) from exc
        return arches.by_name(name)

    @property
    def whole(self) -> bool:
        """Tell whether everything is there."""
        return all(path.is_file() for path in (self.kernel, self.initramfs, self.description))


def key(arch: Arch) -> str:
    """Return the name of the image that this version of cfctl makes on this release."""
    digest = hashlib.sha256(f"{arch.name} {distro.os_release().get('VERSION_CODENAME')}".encode())
    for name in _MADE_BY:
        digest.update((_HERE / name).read_bytes())
    return f"{arch.name}-{digest.hexdigest()[:16]}"


def find(arch: Arch) -> Image | None:
    """Return the image if it need not be built: from the caches, or shipped with the package."""
    places = [
        paths.current().guest_images / key(arch),
        paths.SYSTEM_CACHE / paths.current().guest_images.name / key(arch),
        paths.PREBUILT_GUEST / arch.name,
    ]
    return next((image for image in map(Image, places) if image.whole), None)


def ensure(arch: Arch) -> Image:
    """Return the image, built if need be; two callers at once build it once.

    :raises GuestImageUnavailable: if it cannot be built here; nothing is left behind.
    """
    if image := find(arch):
        return image
    cache = paths.current().guest_images
    with locks.exclusive(cache / ".lock"):
        if image := find(arch):
            return image
        with _scratch(cache) as scratch:
            directory = scratch / "image"
            _build(arch, scratch, directory)
            target = cache / key(arch)
            shutil.rmtree(target, ignore_errors=True)
            directory.rename(target)
    return Image(target)


@contextlib.contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """Make a directory on the cache's file system for the block."""
    # What a killed build left is nobody's: the caller holds the lock.
    for left in cache.glob(".build-*"):
        shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=cache))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _build(arch: Arch, scratch: Path, directory: Path) -> None:
    """Make an image in ``directory``."""
    apt = PrivateApt(scratch / "apt", arch)
    with step("read the package lists (a private copy)"):
        apt.update()
    with step("fetch kernel, busybox, mke2fs and adbd"):
        apt.download(["adbd", "busybox-static", "e2fsprogs"])
        apt.download_only([apt.dependency(arch.kernel_package, "linux-image-")])
        tree = apt.unpack()
    with step("make the guest image"):
        directory.mkdir(mode=0o755)
        image = Image(directory)
        packed = next(iter(sorted(tree.glob("boot/vmlinuz-*"))), None)
        if packed is None:
            raise GuestImageUnavailable("the kernel package has no boot/vmlinuz-*")
        image.kernel.write_bytes(packed.read_bytes())
        if fast := kernel.uncompressed(image.kernel.read_bytes()):
            (directory / "kernel.fast").write_bytes(fast)
        image.initramfs.write_bytes(gzip.compress(initramfs(tree, arch), mtime=0))
        image.description.write_text(
            json.dumps(
                {"arch": arch.name, "kernel": packed.name.partition("-")[2], "packages": apt.versions()}, indent=1
            )
            + "\n"
        )
        # Whatever the umask: other users boot it, and nobody changes it.
        directory.chmod(0o755)
        for path in directory.iterdir():
            path.chmod(0o444)


def initramfs(tree: Path, arch: Arch) -> bytes:
    """Return the archive that the kernel unpacks and runs ``/init`` of.

    :param tree: unpacked packages.
    :raises GuestImageUnavailable: if something is missing from them.
    """
    entries: dict[str, cpio.Entry] = {
        name: cpio.directory() for name in ("dev", "proc", "sys", "run", "tmp", "root", "sbin", "data")
    }
    entries["dev/console"] = cpio.character_device(5, 1)
    entries["dev/null"] = cpio.character_device(1, 3, 0o666)
    entries["init"] = cpio.file((_HERE / "init").read_bytes(), 0o755)
    entries["etc/passwd"] = cpio.file(b"root:x:0:0:root:/root:/bin/sh\n")
    entries["etc/group"] = cpio.file(b"root:x:0:\n")
    # adbd starts the shell by Android's path.
    entries["system/bin"] = cpio.link("/bin")
    entries["bin/busybox"] = cpio.file(_program(tree, "busybox"), 0o755)
    entries |= {f"bin/{name}": cpio.link("busybox") for name in applets(entries["bin/busybox"].data)}
    entries["usr/bin/adbd"] = cpio.file(_program(tree, "adbd"), 0o755)
    entries |= _libraries(tree, arch, entries["usr/bin/adbd"].data)
    # busybox has one too, which makes no journal: what a VM's sudden end leaves would be damaged.
    entries["sbin/mke2fs"] = cpio.file(_program(tree, "mke2fs"), 0o755)
    entries |= _libraries(tree, arch, entries["sbin/mke2fs"].data)
    early = _modules(tree, _EARLY_MODULES)
    entries |= {f"lib/modules/{name}.ko": cpio.file(data) for name, data in early.items()}
    entries["lib/modules/load"] = cpio.file("".join(f"{name}\n" for name in early).encode())
    late = {name: data for name, data in _modules(tree, _LATE_MODULES).items() if name not in early}
    entries |= {f"lib/modules/{name}.ko": cpio.file(data) for name, data in late.items()}
    entries["lib/modules/late"] = cpio.file("".join(f"{name}\n" for name in late).encode())
    return cpio.archive(entries)


def _program(tree: Path, name: str) -> bytes:
    for directory in ("usr/bin", "bin", "usr/sbin", "sbin"):
        path = tree / directory / name
        if path.is_file() and not path.is_symlink():
            return path.read_bytes()
    found = (path for path in sorted(tree.rglob(name)) if path.is_file() and not path.is_symlink())
    for path in found:
        if elf.is_elf(data := path.read_bytes()):
            return data
    raise GuestImageUnavailable(f"the packages have no program {name}")


def applets(busybox: bytes) -> list[str]:
    """Return the commands in a busybox, from the table of names in it: it may be another processor's.

    :raises GuestImageUnavailable: if one that the guest needs is not there.
    """
    start = busybox.find(b"\0[\0[[\0") + 1
    table = re.compile(rb"(?:[a-z0-9_.\[-]+\0)+").match(busybox, start) if start else None
    names = table[0].decode().split("\0")[:-1] if table else []
    if missing := sorted(_APPLETS - set(names)):
        raise GuestImageUnavailable(f"the package's busybox lacks {', '.join(missing)}")
    return [name for name in names if name != "busybox"]


def _libraries(tree: Path, arch: Arch, program: bytes) -> dict[str, cpio.Entry]:
    """Return the program's libraries and theirs, in the places where the dynamic linker looks."""
    # Merged /usr or not, and Android's libraries in a folder of their own.
    directories = [tree / prefix / arch.triplet for prefix in ("usr/lib", "lib")]
    directories = [tree / "usr/lib" / arch.triplet / "android", *directories, tree / "lib", tree / "lib64"]
    entries: dict[str, cpio.Entry] = {}
    waiting = elf.needed(program)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        base = name.rpartition("/")[2]
        if base in seen and "/" not in name:
            continue
        seen.add(base)
        path = next((path for path in (place / base for place in directories) if path.is_file()), None)
        if path is None:
            raise GuestImageUnavailable(f"the packages have no library {base}", "adbd or mke2fs needs it.")
        data = path.read_bytes()
        # The interpreter is found by the path in the program, a library by the linker's default directory.
        entries[name.lstrip("/") if "/" in name else f"lib/{base}"] = cpio.file(data, 0o755)
        waiting += [library for library in elf.needed(data) if library.rpartition("/")[2] not in seen]
    return entries


def _modules(tree: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the modules with what they depend on, in an order in which they can be loaded.

    A name without a file is built into the kernel.
    """
    files = {path.name.partition(".")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in found or name not in files:
            return
        data = _module(files[name])
        for dependency in _depends(data):
            add(dependency)
        found[name] = data

    for name in names:
        add(name)
    return found


def _module(path: Path) -> bytes:
    if path.suffix == ".ko":
        return path.read_bytes()
    if path.suffix == ".xz":
        import lzma

        return lzma.decompress(path.read_bytes())
    raise GuestImageUnavailable(f"the kernel module {path.name} is compressed in a way that cfctl cannot read")


def _depends(module: bytes) -> list[str]:
    """Return what a module's ``.modinfo`` section says it needs (modinfo(8), field ``depends``)."""
    start = module.find(b"\0depends=")
    if start < 0:
        return []
    value = module[start + 9 : module.index(b"\0", start + 9)].decode()
    return [name.replace("-", "_") for name in value.split(",") if name]


def copy(image: Image, directory: Path, *, link: bool) -> Image:
    """Copy an image; on file systems that can share blocks (btrfs, XFS) that costs nothing.

    :param link: make hard links where that works: only for a place where nobody changes anything, as a cache.
    """
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    for source in image.files:
        target = directory / source.name
        if link:
            with contextlib.suppress(OSError):
                target.hardlink_to(source)
                continue
        with source.open("rb") as reader, target.open("wb") as writer:
            _clone(reader.fileno(), writer.fileno())
            if not target.stat().st_size:
                shutil.copyfileobj(reader, writer, 1 << 20)
        target.chmod(0o444)
    return Image(directory)


def _clone(source: int, target: int) -> None:
    import fcntl

    ficlone = 0x40049409  # linux/fs.h
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, ficlone, source)


def describe(image: Image) -> dict[str, object]:
    """Return what an image was made from."""
    loaded: dict[str, object] = json.loads(image.description.read_text())
    return {**loaded, "bytes": sum(path.stat().st_size for path in image.files)}
