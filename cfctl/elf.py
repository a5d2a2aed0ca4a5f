"""Reads the little of ELF that is needed here: what a program is linked with, and for which processor (elf(5))."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmap import mmap

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian: both architectures
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5


def is_elf(data: bytes | mmap) -> bool:
    """Tell whether this is a 64-bit little-endian ELF file."""
    return data[: len(_MAGIC)] == _MAGIC


def machine(data: bytes | mmap) -> int:
    """Return the processor that the file is for (``e_machine``); 0 if it is damaged."""
    try:
        return int(struct.unpack_from("<H", data, 18)[0])
    except struct.error:
        return 0


def needed(data: bytes | mmap) -> list[str]:
    """Return the libraries that a program or library is linked with, and its interpreter's path first if it has one.

    :raises ValueError: if it is not a whole ELF file.
    """
    if not is_elf(data):
        raise ValueError("not a 64-bit little-endian ELF file")
    try:
        return _needed(data)
    except (struct.error, IndexError, OverflowError, StopIteration) as exc:
        raise ValueError(f"a damaged ELF file: {exc}") from exc


def _needed(data: bytes | mmap) -> list[str]:
    offset, size, count = struct.unpack_from("<Q14xHH", data, 32)
    segments = [struct.unpack_from("<IIQQQQ", data, offset + index * size) for index in range(count)]
    found = [
        data[start : start + length].rstrip(b"\0").decode()
        for kind, _, start, _, _, length in segments
        if kind == _PT_INTERP
    ]
    for kind, _, start, _, _, length in segments:
        if kind != _PT_DYNAMIC:
            continue
        tags = list(struct.iter_unpack("<QQ", data[start : start + length]))
        strings = next((value for tag, value in tags if tag == _DT_STRTAB), 0)
        table = next(
            strings - address + file_offset
            for kind, _, file_offset, address, _, file_size in segments
            if kind == _PT_LOAD and address <= strings < address + file_size
        )
        for tag, value in tags:
            if tag == _DT_NEEDED:
                end = data.find(b"\0", table + value)
                if end < 0:
                    raise IndexError("a name without an end")
                found.append(data[table + value : end].decode())
    return found
