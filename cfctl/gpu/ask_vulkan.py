"""A program of its own: ask the Vulkan loader for its devices and print them as one line of JSON.

Run as ``python -I ask_vulkan.py``, never imported by cfctl: loading a driver may crash or hang whoever does it.
Only the standard library is used. Structures and constants are those of vulkan_core.h (Vulkan 1.3).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import sys
from typing import Any

_TYPES = {0: "other", 1: "integrated", 2: "discrete", 3: "virtual", 4: "cpu"}
_ERRORS = {
    -1: "out of host memory",
    -2: "out of device memory",
    -3: "initialisation failed",
    -7: "an extension is not present",
    -9: "no driver that fits is installed",
}
_QUEUE_GRAPHICS = 1
_STRUCTURE_APPLICATION_INFO = 0
_STRUCTURE_INSTANCE_CREATE_INFO = 1
_API_1_1 = (1 << 22) | (1 << 12)
#: VkPhysicalDeviceProperties has 824 bytes; room for what later versions may add.
_PROPERTIES_SIZE = 4096
#: apiVersion, driverVersion, vendorID, deviceID, deviceType, deviceName.
_PROPERTIES = struct.Struct("=5I256s")
#: VkQueueFamilyProperties: queueFlags, queueCount, timestampValidBits, an extent of three numbers.
_QUEUE_FAMILY = struct.Struct("=6I")


class _ApplicationInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("application_name", ctypes.c_char_p),
        ("application_version", ctypes.c_uint32),
        ("engine_name", ctypes.c_char_p),
        ("engine_version", ctypes.c_uint32),
        ("api_version", ctypes.c_uint32),
    )


class _InstanceCreateInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.POINTER(_ApplicationInfo)),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    )


def _failed(what: str, code: int) -> str:
    return f"{what}: {_ERRORS.get(code, f'error {code}')}"


def _has_graphics(vulkan: ctypes.CDLL, device: ctypes.c_void_p) -> bool:
    """Tell whether any queue family draws: MIG slices and compute drivers have none."""
    count = ctypes.c_uint32()
    vulkan.vkGetPhysicalDeviceQueueFamilyProperties(device, ctypes.byref(count), None)
    families = ctypes.create_string_buffer(_QUEUE_FAMILY.size * max(count.value, 1))
    vulkan.vkGetPhysicalDeviceQueueFamilyProperties(device, ctypes.byref(count), families)
    flags = (_QUEUE_FAMILY.unpack_from(families, index * _QUEUE_FAMILY.size)[0] for index in range(count.value))
    return any(flag & _QUEUE_GRAPHICS for flag in flags)


def _device(vulkan: ctypes.CDLL, handle: int) -> dict[str, Any]:
    device = ctypes.c_void_p(handle)
    raw = ctypes.create_string_buffer(_PROPERTIES_SIZE)
    vulkan.vkGetPhysicalDeviceProperties(device, raw)
    api, driver, vendor, _, kind, name = _PROPERTIES.unpack_from(raw)
    return {
        "name": name.split(b"\0")[0].decode(errors="replace"),
        "type": _TYPES.get(kind, "other"),
        "vendor_id": vendor,
        "driver_version": driver,
        "api_version": api,
        "graphics": _has_graphics(vulkan, device),
    }


def ask() -> dict[str, Any]:
    """Return ``library`` (could it be loaded), ``devices`` and, if it did not go well, ``error``."""
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError as exc:
        return {"library": False, "devices": [], "error": str(exc)}
    application = _ApplicationInfo(
        type=_STRUCTURE_APPLICATION_INFO,
        application_name=b"cfctl",
        # A loader of Vulkan 1.0 knows no later version and would refuse one.
        api_version=_API_1_1 if hasattr(vulkan, "vkEnumerateInstanceVersion") else 1 << 22,
    )
    info = _InstanceCreateInfo(type=_STRUCTURE_INSTANCE_CREATE_INFO, application=ctypes.pointer(application))
    instance = ctypes.c_void_p()
    if code := vulkan.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)):
        return {"library": True, "devices": [], "error": _failed("vkCreateInstance", code)}
    count = ctypes.c_uint32()
    if code := vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None):
        return {"library": True, "devices": [], "error": _failed("vkEnumeratePhysicalDevices", code)}
    handles = (ctypes.c_void_p * max(count.value, 1))()
    # A positive code says that devices came in the meantime; those that fit are good.
    code = vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
    if code < 0:
        return {"library": True, "devices": [], "error": _failed("vkEnumeratePhysicalDevices", code)}
    return {
        "library": True,
        "devices": [_device(vulkan, handle) for handle in handles[: count.value] if handle],
        "error": None,
    }


if __name__ == "__main__":
    # A driver that crashes shall leave no core file behind.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The newline first: a driver may have printed half a line.
    sys.stdout.write("\n" + json.dumps(ask()) + "\n")
    sys.stdout.flush()
    # Without the drivers' own exit handlers, which crash more often than they do good.
    os._exit(0)
