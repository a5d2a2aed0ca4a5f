"""A person at another machine who opens a link in Chromium: ``python -m tests.system.look_at_screen LINK [TEXT]``.

Prints what the statistics say once the picture has moved; then types TEXT into the device, line by line.
"""

from __future__ import annotations

import json
import re
import sys
import time

from playwright.sync_api import Page, expect, sync_playwright

from tests.relay.browsers import visit

PATIENCE_S = 120.0

_PIXELS = """() => {
  const video = document.getElementById("video");
  if (!video || !video.videoWidth) return null;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return canvas.toDataURL();
}"""


def moved(page: Page) -> None:
    """Wait until three pictures were seen that differ."""
    seen: set[str] = set()
    deadline = time.monotonic() + PATIENCE_S
    while len(seen) < 3:
        if picture := page.evaluate(_PIXELS):
            seen.add(picture)
        assert time.monotonic() < deadline, f"{len(seen)} pictures; {page.locator('#status').text_content()}"
        time.sleep(0.1)


def main(link: str, text: str = "") -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        visit(page, link)
        page.wait_for_selector("#stage[data-connected=true]")
        assert "code=" not in page.url
        moved(page)
        page.get_by_role("button", name="Statistics").click()
        # The first numbers are of no time at all, and name no way yet.
        some = re.compile(r"[1-9][0-9]* frames/s")
        expect(page.locator("#stats")).to_contain_text(some, timeout=1000 * PATIENCE_S)
        if text:
            page.get_by_role("button", name="Paste").click()
            page.get_by_label("What is typed").fill(text)
            page.get_by_role("button", name="Type it").click()
            expect(page.locator("#status")).to_have_text("Typed.", timeout=1000 * PATIENCE_S)
        print(json.dumps({"stats": page.locator("#stats").text_content()}), flush=True)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
