"""Take the pictures of the page in docs/images: real devices in a sandbox, Chromium beside them (as root).

PYTHONPATH=. .venv/bin/python tools/page_pictures.py docs/images
"""

from __future__ import annotations

import struct
import sys
import tempfile
import zlib
from pathlib import Path

from playwright.sync_api import ViewportSize, expect

from cfctl import arch
from tests.system.conftest import _package
from tests.system.test_page_vm import PATIENCE_MS, serving

#: What is typed, so that there is something to see.
_TYPED = "uname -mrs; uptime; free -m; ls /\n"

_DEVICE: ViewportSize = {"width": 1120, "height": 700}
_LIST: ViewportSize = {"width": 1120, "height": 330}


def smaller(png: bytes) -> bytes:
    """Return the same picture with its data packed as well as can be: a browser packs in a hurry."""
    at, data, chunks = 8, b"", []
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IDAT":
            data += body
        elif kind in (b"IHDR", b"IEND"):
            chunks.append((kind, body))
    chunks.insert(1, (b"IDAT", zlib.compress(zlib.decompress(data), 9)))
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return png[:8] + b"".join(packed)


def main(directory: Path) -> None:
    """Write page-list.png and page-device.png."""
    _package(arch.host())
    with (
        tempfile.TemporaryDirectory(prefix="pictures-") as base,
        serving(Path(base), "phone", "tablet", "ci-7") as lab,
    ):
        lab.box.cfctl("stop", "ci-7")
        with lab.live(viewport=_DEVICE, color_scheme="dark") as page:
            page.get_by_role("button", name="Paste").click()
            page.get_by_label("What is typed").fill(_TYPED)
            page.get_by_role("button", name="Type it").click()
            expect(page.locator("#status")).to_have_text("Typed.", timeout=PATIENCE_MS)
            page.get_by_role("button", name="Statistics").click()
            # It counts from one second to the next, and what was said goes by and by.
            page.wait_for_timeout(9000)
            page.mouse.move(5, 400)
            (directory / "page-device.png").write_bytes(smaller(page.screenshot()))
        with lab.page(lab.box.json("open")["url"], viewport=_LIST, color_scheme="light") as page:
            expect(page.locator(".card")).to_have_count(3, timeout=PATIENCE_MS)
            page.wait_for_timeout(9000)
            (directory / "page-list.png").write_bytes(smaller(page.screenshot()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
