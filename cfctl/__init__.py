"""cfctl runs Android Cuttlefish virtual devices on ordinary Linux servers.

``from cfctl import Host, Device`` is the Python API (docs/api.md); it is loaded when it is first used, so that
``import cfctl`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfctl.api import Device, Host

__version__ = "0.1.0"
__all__ = ["Device", "Host", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Device", "Host"):
        import importlib

        return getattr(importlib.import_module("cfctl.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
