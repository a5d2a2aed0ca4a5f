"""What a set of guest images says about itself."""

from __future__ import annotations

from pathlib import Path


def supports_gfxstream(images: Path | None) -> bool:
    """Tell whether the guest can use gfxstream: ``gfxstream=supported`` in its ``android-info.txt``.

    :param images: the directory with the images; None, or one without the file, is a guest that cannot.
    """
    if images is None:
        return False
    try:
        lines = (images / "android-info.txt").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return "gfxstream=supported" in (line.strip() for line in lines)
