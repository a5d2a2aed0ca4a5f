"""What the screen shows, saved where a client of run_cvd wants it."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from cfctl.control import picture, qmp
from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from pathlib import Path


async def screenshot(monitor: Path, scratch: Path, target: Path) -> None:
    """Save what the screen shows.

    :param monitor: QEMU's.
    :param scratch: a directory of the device's.
    :param target: a file with the ending ``.png``.
    :raises CfctlError: if QEMU cannot, the ending is another, or the file cannot be written; nothing is left then.
    """
    if target.suffix.lower() != ".png":
        raise CfctlError(f"a screenshot of the embedded guest is a .png, not {target.suffix or 'without an ending'}")
    raw = scratch / f"screen-{secrets.token_hex(4)}.ppm"
    part = target.with_name(f".{target.name}.part")
    try:
        await qmp.execute(monitor, "screendump", filename=os.fspath(raw))
        part.write_bytes(picture.png(raw.read_bytes()))
        part.replace(target)
    except OSError as exc:
        raise CfctlError(f"{target} cannot be written", exc.strerror) from exc
    finally:
        raw.unlink(missing_ok=True)
        # Where it could not be written there is none, and looking for it may be forbidden as well.
        with contextlib.suppress(OSError):
            part.unlink()
