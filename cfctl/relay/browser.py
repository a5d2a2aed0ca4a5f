"""Opens a link in the browser of whoever sits at this machine.

A link has a code in it that lets in whoever comes first, and everybody may read the arguments of a program. So the
browser is given a private file, and the file leads on to the link.
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl import disk, paths, process

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Of the freedesktop.org desktops: it knows which browser is the user's.
_OPENER = "xdg-open"

_LEADS_ON = """<!doctype html>
<meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>Opening the device</title>
<meta http-equiv="refresh" content="0; url={url}">
<a href="{url}">Go on to the device</a>
"""


def graphical(environ: Mapping[str, str], uid: int) -> bool:
    """Tell whether there is a browser to open: a graphical session, of somebody who is not root.

    Root's browsers refuse to start, and one in another's session would be root's too.
    """
    session = environ.get("WAYLAND_DISPLAY") or environ.get("DISPLAY")
    return bool(session) and uid != 0 and process.find(_OPENER) is not None


def show(url: str) -> process.Child:
    """Have a link opened; return the program that does. Whether the browser then shows it, nobody tells.

    :raises CfctlError: if there is no place for the file, or no program that opens it.
    """
    file = paths.current().opened
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Made anew: nobody has it open, and nobody else may.
        file.unlink(missing_ok=True)
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as out:
            out.write(_LEADS_ON.format(url=html.escape(url)))
    except OSError as exc:
        raise disk.error(file, exc) from exc
    return process.start([_OPENER, file], output=Path(os.devnull))
