"""What must be known of the guest's images before a launch; what they say of graphics is :mod:`cfctl.gpu.guest`'s."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cfctl import arch
from cfctl.artifacts import guest
from cfctl.errors import WrongProcessor


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
