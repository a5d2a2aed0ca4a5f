"""What a set of guest images says about itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cfctl import arch
from cfctl.artifacts import guest
from cfctl.errors import WrongProcessor


def supports_gfxstream(images: Path) -> bool | None:
    """Tell whether the guest can use gfxstream: ``gfxstream=supported`` in its ``android-info.txt``.

    :param images: the directory with the images.
    :return: None if the guest does not say.
    """
    try:
        lines = (images / "android-info.txt").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return "gfxstream=supported" in (line.strip() for line in lines)


def check_processor(images: Path, flags: Iterable[str]) -> None:
    """Look whether this host can run the guest.

    :param flags: the launcher's; with ``--vm_manager=qemu_cli`` QEMU runs any guest, in software.
    :raises WrongProcessor: if it was made for another processor.
    """
    theirs, ours = guest.processor(images), arch.host().name
    if theirs in (None, ours) or any(flag.lstrip("-") == "vm_manager=qemu_cli" for flag in flags):
        return
    raise WrongProcessor(
        f"the guest in {images}",
        str(theirs),
        ours,
        f"Take the images of a build for {ours}, or let QEMU imitate the processor, which is slow: "
        "cfctl launch ... -- --vm_manager=qemu_cli",
    )
