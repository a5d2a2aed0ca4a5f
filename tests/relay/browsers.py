"""Debian's Chromium, for tests that look at pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Error, Page, sync_playwright


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """Run it for the block.

    :param options: of its command line, beside what root needs.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", *options])
        yield browser
        browser.close()


def visit(page: Page, url: str) -> None:
    """Open a page; once more where Chromium gives up because an interface has got an address meanwhile."""
    for _ in range(20):
        try:
            page.goto(url)
        except Error as error:
            if "ERR_NETWORK_CHANGED" not in error.message:
                raise
        else:
            return
    raise AssertionError("the network changes all the time")
