"""The image of the containers: what goes into it, whether it is current, how it is built, pushed and pulled."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cfctl
from cfctl import steps
from cfctl.docker import names
from cfctl.docker.engine import asking
from cfctl.errors import ImageUnavailable, UsageError
from cfctl.gpu import vendors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cfctl.docker.engine import Engine

DEFAULT_TAG = "cfctl"
DEFAULT_BASE = "debian:12"
NO_GPU = "none"

_SOURCE = Path(cfctl.__file__).parent
_CONTEXT = Path(__file__).with_name("context")

#: What a device needs beside the GPU's libraries: package of Debian's family -> of RHEL's. The first that the base's
#: mirrors have of several: RHEL 8 and 9 have a newer Python beside their own, 10 and Fedora have none but their own.
_RUNTIME = {
    "python3": "python3.11|python3",
    "python3-venv": None,
    "iproute2": "iproute",
    "nftables": "nftables",
    "dnsmasq-base": "dnsmasq",
    "qemu-system-x86": "qemu-kvm",
    "seabios": None,
    "openssh-server": "openssh-server",
    "procps": "procps-ng",
}

#: What images of Debian always have, and small ones of RHEL's family need not: users, setpriv, pushed archives.
_RPM_BASICS = ("shadow-utils", "util-linux", "tar", "gzip", "findutils")

#: What the code that runs inside imports (pyproject.toml, ``dependencies``, without those of `cfctl docker`).
_LIBRARIES = ("typer", "click", "rich", "msgspec")


@dataclass(frozen=True)
class Recipe:
    """What an image is made of; equal recipes make equal images.

    :param base: the image to begin with.
    :param vendor: key of a GPU profile, or ``none``.
    :param guest: directory with the embedded guest's image files, or None to leave it out.
    :param arch: as the kernel calls it: where the guest's image goes.
    """

    base: str = DEFAULT_BASE
    vendor: str = NO_GPU
    guest: Path | None = None
    arch: str = "x86_64"
    build_args: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vendor != NO_GPU and self.vendor not in vendors.load():
            raise UsageError(
                f"there is no GPU vendor {self.vendor!r}", f"Vendors: {NO_GPU}, {', '.join(vendors.load())}."
            )

    @property
    def rpm(self) -> bool:
        """Whether the base is of RHEL's family, told by its name."""
        name = self.base.rpartition("/")[2]
        return name.startswith(
            ("fedora", "rockylinux", "almalinux", "centos", "ubi", "rhel", "oraclelinux", "stream")
        )

    @property
    def packages(self) -> list[str]:
        """The packages that the base must have."""
        own = [*_RUNTIME.values(), *_RPM_BASICS] if self.rpm else list(_RUNTIME)
        if self.arch == "aarch64":
            own = ["qemu-system-arm" if name == "qemu-system-x86" else name for name in own if name != "seabios"]
        profile = vendors.load().get(self.vendor)
        gpu = () if profile is None else (profile.rpm if self.rpm else profile.debian)
        # The driver itself is the kernel's, on the engine's machine. NVIDIA's libraries come with it at run time
        # (container toolkit or CDI): those of another version in the image would be in their way.
        foreign = ("nvidia", "akmod", "xorg-x11-drv-nvidia", "firmware-")
        return [name for name in (*own, *gpu) if name and not name.startswith(foreign)]

    @property
    def pins(self) -> list[str]:
        """The libraries of this very cfctl, with what they need, each of the version that is installed here."""
        wanted, pins = list(_LIBRARIES), {}
        while wanted:
            name = wanted.pop()
            try:
                found = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                continue  # needed elsewhere only, for example on another system
            if found.name in pins:
                continue
            pins[found.name] = found.version
            wanted += [_requirement(line) for line in found.requires or [] if "extra ==" not in line]
        return sorted(f"{name}=={version}" for name, version in pins.items())

    @property
    def key(self) -> str:
        """A hash of everything that decides what is in the image."""
        digest = hashlib.sha256()
        for name, data in self.files():
            digest.update(f"{name} {len(data)}\n".encode())
            digest.update(data)
        digest.update(repr([self.base, self.arguments(), sorted(self.build_args.items())]).encode())
        return digest.hexdigest()[:16]

    def arguments(self) -> dict[str, str]:
        """Return the Dockerfile's arguments."""
        return {
            "BASE": self.base,
            "PACKAGES": " ".join(self.packages),
            "PINS": " ".join(self.pins),
        }

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Return what the engine gets to build from: name -> content."""
        for path in sorted(_CONTEXT.iterdir()):
            yield path.name, path.read_bytes()
        for path in _own_files():
            yield f"cfctl/{path.relative_to(_SOURCE)}", path.read_bytes()
        if self.guest is None:
            yield "share/README", b"Files that packages of cfctl bring.\n"
        else:
            for path in sorted(self.guest.iterdir()):
                yield f"share/guest/{self.arch}/{path.name}", path.read_bytes()

    def context(self) -> io.BytesIO:
        """Return the same as a tar archive."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, data in self.files():
                # Without times: equal files must find the layers that they made before.
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))
        archive.seek(0)
        return archive


def _own_files() -> list[Path]:
    files = [path for path in _SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    profiles = [path for path in (_SOURCE / "gpu/profiles").glob("*/profile.toml") if path not in files]
    return sorted({*files, *profiles})


def _requirement(line: str) -> str:
    name = line
    for separator in ";[(<>=!~ ":
        name = name.partition(separator)[0]
    return name.strip()


def detected_vendor() -> str:
    """Return the maker of this machine's GPU, or ``none``."""
    from cfctl.gpu import facts

    for gpu in facts.read().gpus:
        if gpu.vendor and vendors.load()[gpu.vendor].draws:
            return gpu.vendor
    return NO_GPU


def find(engine: Engine, tag: str) -> Any | None:
    """Return an image of the engine, or None."""
    from docker.errors import ImageNotFound

    with asking(f"look for the image {tag}"):
        try:
            return engine.api.images.get(tag)
        except ImageNotFound:
            return None


def require(engine: Engine, tag: str) -> Any:
    """Return an image of the engine that is one of ours.

    :raises ImageUnavailable: without it, or if it was not made by cfctl.
    """
    image = find(engine, tag)
    if image is None:
        raise ImageUnavailable(
            f"the engine has no image {tag!r}",
            "Containers are made from it.",
            f"Build it: cfctl docker build --tag {tag}\nOr fetch it: cfctl docker pull REGISTRY/{tag}",
        )
    if names.VERSION not in (image.labels or {}):
        raise ImageUnavailable(
            f"the image {tag!r} was not made by cfctl",
            f"It has no label {names.VERSION}.",
            "Build one: cfctl docker build",
        )
    return image


@dataclass(frozen=True)
class Built:
    """What came of a build.

    :param id: the image's.
    :param changed: False if nothing had changed since it was built.
    """

    tag: str
    id: str
    vendor: str
    key: str
    changed: bool


def build(engine: Engine, recipe: Recipe, *, tag: str = DEFAULT_TAG, force: bool = False) -> Built:
    """Build the image, unless it is there and was made from the same.

    :raises ImageUnavailable: if a step of the build fails, with its output; the tag stays where it was.
    """
    key = recipe.key
    have = find(engine, tag)
    if have is not None and not force and have.labels.get(names.IMAGE_KEY) == key:
        return Built(tag, have.id, recipe.vendor, key, changed=False)
    labels = {names.VERSION: cfctl.__version__, names.VENDOR: recipe.vendor, names.IMAGE_KEY: key}
    with steps.step(f"build image {tag} from {recipe.base}"), asking("build the image"):
        said: list[str] = []
        for line in engine.api.api.build(
            fileobj=recipe.context(),
            custom_context=True,
            tag=tag,
            rm=True,
            forcerm=True,
            nocache=force,
            decode=True,
            labels=labels,
            buildargs={**recipe.arguments(), **recipe.build_args},
        ):
            _follow(line, said)
    built = find(engine, tag)
    if built is None or built.labels.get(names.IMAGE_KEY) != key:
        raise ImageUnavailable("the build ended without an image", "\n".join(said[-20:]))
    return Built(tag, built.id, recipe.vendor, key, changed=True)


def _follow(line: Mapping[str, Any], said: list[str]) -> None:
    """Take one message of a build: show it, keep it for an error."""
    if "error" in line:
        raise ImageUnavailable(
            "a step of the build failed",
            "\n".join([*said[-20:], str(line["error"]).strip()]),
            "If a package could not be fetched: the engine's containers need a way to the mirrors of the base image, "
            "or a base that has the packages: cfctl docker build --base IMAGE",
        )
    for text in str(line.get("stream", "")).splitlines():
        if text.strip():
            said.append(text.rstrip())
            if text.startswith("Step "):
                steps.note(text.strip())


def push(engine: Engine, tag: str) -> str:
    """Push an image to the registry that its name says; return its digest."""
    require(engine, tag)
    with steps.step(f"push {tag}"), asking(f"push {tag}", _advice(tag, "push")):
        return _transfer(engine.api.api.push(tag, stream=True, decode=True), tag, "push")


def pull(engine: Engine, name: str, *, tag: str) -> str:
    """Pull an image from a registry and give it the tag that ``create`` looks for; return its id."""
    with (
        steps.step(f"pull {name}"),
        asking(f"pull {name}", _advice(name, "pull")),
    ):
        _transfer(engine.api.api.pull(name, stream=True, decode=True), name, "pull")
    image = require(engine, name)
    if tag != name:
        with asking("tag the image"):
            image.tag(tag)
    return str(image.id)


def _advice(name: str, verb: str) -> str:
    """Return what helps if a registry was not reached, or refused."""
    first, slash, _ = name.partition("/")
    # Docker's own rule: without a dot or a port in the first part the image is Docker Hub's.
    if slash and ("." in first or ":" in first or first == "localhost"):
        return f"Log in to the registry, if it asks for that: docker login {first}"
    tag = f"docker tag {name} REGISTRY/{name} && " if verb == "push" else ""
    return f"The name says no registry, which means Docker Hub. Name yours: {tag}cfctl docker {verb} REGISTRY/{name}"


def _transfer(lines: Iterator[Mapping[str, Any]], name: str, verb: str) -> str:
    from cfctl.errors import EngineRefused

    digest = ""
    for line in lines:
        if "error" in line:
            raise EngineRefused(f"{name} could not be {verb}ed", str(line["error"]), _advice(name, verb))
        aux = line.get("aux") or {}
        digest = aux.get("Digest", digest)
    return digest
