"""What a set of guest images says about itself."""

from __future__ import annotations

from pathlib import Path


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
