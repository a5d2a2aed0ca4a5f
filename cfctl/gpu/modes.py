"""The graphics modes that launch_cvd knows as ``--gpu_mode`` (android-cuttlefish ``host/libs/config/gpu_mode.h``)."""

from __future__ import annotations

import difflib

from cfctl.errors import UsageError

AUTO = "auto"
GUEST_SWIFTSHADER = "guest_swiftshader"
GUEST_LAVAPIPE = "guest_lavapipe"
DRM_VIRGL = "drm_virgl"
GFXSTREAM = "gfxstream"
GUEST_ANGLE = "gfxstream_guest_angle"
HOST_SWIFTSHADER = "gfxstream_guest_angle_host_swiftshader"
HOST_LAVAPIPE = "gfxstream_guest_angle_host_lavapipe"
CUSTOM = "custom"
NONE = "none"

#: Every mode but ``auto``, the fastest first, with what it means.
MODES = {
    GFXSTREAM: "OpenGL ES and Vulkan of the guest go to the host's GPU",
    GUEST_ANGLE: "Vulkan of the guest goes to the host's GPU; OpenGL ES becomes Vulkan in the guest",
    DRM_VIRGL: "OpenGL of the guest goes to the host's GPU through virglrenderer; no Vulkan",
    HOST_SWIFTSHADER: "like gfxstream_guest_angle, with SwiftShader on the host's CPU as the GPU",
    HOST_LAVAPIPE: "like gfxstream_guest_angle, with lavapipe on the host's CPU as the GPU",
    GUEST_LAVAPIPE: "everything is drawn on the guest's CPU by lavapipe",
    GUEST_SWIFTSHADER: "everything is drawn on the guest's CPU by SwiftShader",
    CUSTOM: "what --gpu_context_types and --guest_vulkan_driver say",
    NONE: "no GPU at all, so no screen",
}

#: Modes that ask nothing of the host's drivers: nothing needs to be probed for them.
HOST_INDEPENDENT = frozenset({GUEST_SWIFTSHADER, GUEST_LAVAPIPE, CUSTOM, NONE})


def check(name: str) -> None:
    """Look whether ``name`` is ``auto`` or a mode.

    :raises UsageError: if it is not, with the modes and the one that was probably meant.
    """
    known = (AUTO, *MODES)
    if name in known:
        return
    close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    raise UsageError(
        f"there is no GPU mode {name!r}",
        f"Modes: {', '.join(known)}.",
        f"Did you mean --gpu {close[0]}?" if close else "See what would work here: cfctl gpu probe",
    )
