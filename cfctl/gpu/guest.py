"""What a set of guest images says about its graphics: ``cuttlefish-guest-config.txtpb`` or ``android-info.txt``.

Names and precedence are upstream's (``base/cvd/cuttlefish/host/commands/assemble_cvd/guest_config.cc``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfctl.gpu import modes, textproto

if TYPE_CHECKING:
    from pathlib import Path

#: The newer file; where it is, the older one is not read.
CONFIG = "cuttlefish-guest-config.txtpb"
INFO = "android-info.txt"

#: Nobody's description of a guest is longer.
_LIMIT = 1 << 20

#: A key of cfctl's own, written into the embedded guest: modes beyond these are refused, not merely warned about.
_ONLY = "cfctl_gpu_modes"


@dataclass(frozen=True, slots=True)
class Guest:
    """What a guest can draw with.

    :param source: the file that says so; empty when nobody does.
    :param known: there was such a file, and it could be read.
    :param gfxstream: it has gfxstream's drivers.
    :param lavapipe: it brings lavapipe.
    :param prefer_virgl: it wants drm_virgl rather than gfxstream.
    :param candidates: the modes that it wants, the best first; empty leaves it to the rule.
    :param only: the modes that it has at all; empty where it does not say.
    :param problem: what is wrong with its description.
    """

    source: str = ""
    known: bool = False
    gfxstream: bool = False
    lavapipe: bool = False
    prefer_virgl: bool = False
    candidates: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    problem: str | None = None


#: Nothing is known.
UNKNOWN = Guest()


#: The source of a guest that was made up.
ASSUMED = "assumed"


def assumed(*, gfxstream: bool) -> Guest:
    """Return a guest of which only this is known."""
    return Guest(source=ASSUMED, known=True, gfxstream=gfxstream)


def read(images: Path) -> Guest:
    """Return what the images say; never raises for what is in them.

    :param images: the directory with the images.
    """
    for name, parse in ((CONFIG, _config), (INFO, _info)):
        path = images / name
        try:
            with path.open("rb") as file:
                data = file.read(_LIMIT + 1)
        except FileNotFoundError:
            continue
        except OSError as exc:
            return Guest(source=str(path), problem=f"{path} cannot be read: {exc.strerror}")
        if len(data) > _LIMIT:
            return Guest(source=str(path), problem=f"{path} is too large to be what it should be")
        try:
            found = parse(data.decode(errors="replace"))
        except ValueError as exc:
            return Guest(source=str(path), problem=f"{path} cannot be understood: {exc}")
        return _checked(replace(found, source=str(path), known=True))
    return UNKNOWN


def _info(text: str) -> Guest:
    """Read ``key=value`` lines; a later one counts."""
    pairs = (line.strip().partition("=") for line in text.splitlines() if "=" in line)
    values = {key.strip(): value.strip() for key, _, value in pairs}

    def supported(name: str) -> bool:
        return values.get(name) == "supported"

    def words(name: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in values.get(name, "").split(",") if word.strip())

    return Guest(
        gfxstream=supported("gfxstream") or supported("vulkan_gfxstream_apex"),
        lavapipe=supported("vulkan_lavapipe_apex"),
        prefer_virgl=values.get("prefer_drm_virgl_when_supported") == "true",
        candidates=words("gpu_mode_candidates"),
        only=words(_ONLY),
    )


def _config(text: str) -> Guest:
    graphics = textproto.message(textproto.parse(text), "graphics") or {}
    wanted = [value for value in graphics.get("gpu_mode_candidates", []) if isinstance(value, str)]
    return Guest(
        gfxstream=any(
            textproto.truth(graphics, name) for name in ("gfxstream_supported", "vulkan_gfxstream_apex_supported")
        ),
        lavapipe=textproto.truth(graphics, "vulkan_lavapipe_apex_supported"),
        prefer_virgl=textproto.truth(graphics, "prefer_drm_virgl_when_supported"),
        candidates=tuple(value.removeprefix("GPU_MODE_").lower() for value in wanted),
    )


def _checked(guest: Guest) -> Guest:
    """Take out of the candidates what is no mode, and say so: upstream gives up there."""
    unknown = [mode for mode in guest.candidates if mode not in modes.MODES]
    if not unknown:
        return guest
    return replace(
        guest,
        candidates=tuple(mode for mode in guest.candidates if mode in modes.MODES),
        problem=f"{guest.source} wants GPU modes that do not exist: {', '.join(unknown)}",
    )
