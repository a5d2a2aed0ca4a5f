"""A relay that is stopped while its page is open in Chromium, with the console of a real guest."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.relay.relays import wait
from tests.system.test_page_vm import PATIENCE_MS, serving


def test_a_relay_that_is_told_to_leave_leaves_though_a_console_is_open(tmp_path: Path, host_package: Path) -> None:
    del host_package
    # A browser's own words for a relay that is gone.
    with serving(tmp_path, "phone") as lab, lab.live(expected="ERR_") as page:
        page.get_by_role("tab", name="Console").click()
        expect(page.locator("#term-note")).to_contain_text("Press Enter", timeout=PATIENCE_MS)
        lab.box.run("pkill", "-TERM", "-f", "cfctl relay serve")
        wait(lambda: lab.box.run("pgrep", "-f", "cfctl relay serve", check=False).returncode, "the relay to leave")
        expect(page.locator("#term-note")).to_contain_text("the relay is gone", timeout=PATIENCE_MS)
