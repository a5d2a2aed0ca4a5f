"""The archive that the kernel unpacks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cfctl.guest import cpio


def unpack(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read an archive back: name -> (mode, data)."""
    found: dict[str, tuple[int, bytes]] = {}
    position = 0
    while True:
        assert data[position : position + 6] == b"070701"
        fields = [int(data[position + 6 + 8 * i : position + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        start = position + 110
        name = data[start : start + name_size - 1].decode()
        start += name_size + -(start + name_size) % 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[start : start + size])
        position = start + size + -size % 4


names = st.lists(
    st.text(alphabet="abcdefgh.-_", min_size=1, max_size=12).filter(lambda word: word.strip(".")),
    min_size=1,
    max_size=3,
).map("/".join)


@given(st.dictionaries(names, st.binary(max_size=40), max_size=6))
def test_files_come_back(files: dict[str, bytes]) -> None:
    assume(not any(other.startswith(f"{name}/") for name in files for other in files))
    entries = {name: cpio.file(data) for name, data in files.items()}
    found = unpack(cpio.archive(entries))
    assert {name: found[name][1] for name in files} == files
    order = list(found)
    for name in order:
        parent = name.rpartition("/")[0]
        assert not parent or order.index(parent) < order.index(name)


def test_is_reproducible() -> None:
    one = {"b": cpio.file(b"1"), "a/c": cpio.link("/b"), "dev/null": cpio.character_device(1, 3)}
    two = dict(reversed(one.items()))
    assert cpio.archive(one) == cpio.archive(two)


def test_cpio_reads_it(tmp_path: Path) -> None:
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("busybox is not installed (make setup)")
    data = cpio.archive({"etc/motd": cpio.file(b"hello\n", 0o600), "bin/sh": cpio.link("busybox")})
    subprocess.run([program, "cpio", "-id", "--quiet"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "etc/motd").read_bytes() == b"hello\n"
    assert (tmp_path / "bin/sh").readlink() == Path("busybox")
