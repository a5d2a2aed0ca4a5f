"""The embedded host package: upstream's launcher commands around a small Linux guest under QEMU.

What lies here is copied into the package and runs there with nothing but Python's standard library.
"""
