"""Which version of the C library a program or library needs (the Linux Standard Base's symbol versions, elf(5))."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from tools.packages.targets import GLIBC

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_STRTAB, _DT_VERNEED, _DT_VERNEEDNUM = 5, 0x6FFFFFFE, 0x6FFFFFFF


def versions(data: bytes) -> set[str]:
    """Return the versions of symbols that an ELF file needs, such as ``GLIBC_2.17``; 64 bits, little-endian."""
    offset, size, count = struct.unpack_from("<Q14xHH", data, 32)
    segments = [struct.unpack_from("<IIQQQQ", data, offset + index * size) for index in range(count)]

    def at(address: int) -> int:
        for kind, _, file_offset, start, _, length in segments:
            if kind == _PT_LOAD and start <= address < start + length:
                return int(address - start + file_offset)
        raise ValueError("a damaged ELF file: an address that is in no segment")

    dynamic = next(((start, length) for kind, _, start, _, _, length in segments if kind == _PT_DYNAMIC), None)
    if dynamic is None:
        return set()
    tags = dict(struct.iter_unpack("<QQ", data[dynamic[0] : sum(dynamic)]))
    if _DT_VERNEED not in tags:
        return set()
    strings, entry = at(tags[_DT_STRTAB]), at(tags[_DT_VERNEED])
    found = set()
    for _ in range(tags[_DT_VERNEEDNUM]):
        _, auxiliaries, _, auxiliary, following = struct.unpack_from("<HHIII", data, entry)
        auxiliary += entry
        for _ in range(auxiliaries):
            _, _, _, name, next_one = struct.unpack_from("<IHHII", data, auxiliary)
            found.add(data[strings + name : data.index(b"\0", strings + name)].decode())
            auxiliary += next_one
        entry += following
    return found


def libraries(tree: Path) -> Iterator[Path]:
    """Return the ELF files below a directory."""
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(6) == b"\x7fELF\x02\x01":
                    yield path


def check(tree: Path, newest: tuple[int, int] = GLIBC) -> None:
    """Refuse libraries that do not load on the oldest target.

    :raises SystemExit: if one needs a newer C library; it says which, and what it needs.
    """
    for path in libraries(tree):
        for version in versions(path.read_bytes()):
            match = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?", version)
            if match and (int(match[1]), int(match[2])) > newest:
                raise SystemExit(f"{path} needs {version}; the oldest target has {newest[0]}.{newest[1]}")
