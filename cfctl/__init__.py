"""cfctl runs Android Cuttlefish virtual devices on ordinary Linux servers."""

__version__ = "0.1.0"
