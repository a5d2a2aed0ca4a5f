"""For which processor a guest's images are."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.artifacts import guest


def kernel(processor: str) -> bytes:
    """Return the beginning of a kernel: what the boot protocols of Linux say about it."""
    head = bytearray(b"\x90" * 8192)
    if processor == "x86_64":
        head[0x202:0x206] = b"HdrS"
    else:
        head[0x38:0x3C] = {"aarch64": b"ARM\x64", "riscv64": b"RSC\x05"}[processor]
    return bytes(head)


def boot_image(content: bytes, *, version: int = 4, page: int = 2048) -> bytes:
    """Return a boot.img around a kernel."""
    header = bytearray(page if version < 3 else 4096)
    header[:8] = b"ANDROID!"
    struct.pack_into("<II", header, 36, page if version < 3 else 0, version)
    return bytes(header) + content


def lz4(content: bytes) -> bytes:
    """Return a legacy LZ4 stream: one block, its first bytes literal, then a match that repeats."""
    literal = content[:600]
    rest = len(literal) - 15
    block = bytes([0xF0]) + b"\xff" * (rest // 255) + bytes([rest % 255]) + literal + b"\x01\x00" + b"\x00"
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


@pytest.mark.parametrize("processor", ["x86_64", "aarch64", "riscv64"])
@pytest.mark.parametrize("version", [0, 2, 3, 4])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lz4])
def test_the_kernel_tells(tmp_path: Path, processor: str, version: int, pack: type[bytes]) -> None:
    (tmp_path / "boot.img").write_bytes(boot_image(pack(kernel(processor)), version=version))
    assert guest.processor(tmp_path) == processor


def test_unknown(tmp_path: Path) -> None:
    assert guest.processor(tmp_path) is None
    (tmp_path / "boot.img").write_bytes(b"")
    assert guest.processor(tmp_path) is None
    (tmp_path / "boot.img").write_bytes(boot_image(b"\x90" * 5000))
    assert guest.processor(tmp_path) is None


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x1f\x8b\x08", b"\x02\x21\x4c\x18"]))
def test_garbage_is_no_processor(tmp_path_factory: pytest.TempPathFactory, content: bytes, head: bytes) -> None:
    directory = tmp_path_factory.mktemp("garbage")
    (directory / "boot.img").write_bytes(boot_image(head + content))
    assert guest.processor(directory) in (None, "x86_64", "aarch64", "riscv64")
    (directory / "boot.img").write_bytes(b"ANDROID!" + content)
    guest.processor(directory)
