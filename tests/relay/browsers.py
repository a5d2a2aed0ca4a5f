"""Debian's Chromium, for tests that look at pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def attentive(browser: Browser, *, patience_ms: float, but: tuple[str, ...] = (), **options: Any) -> Iterator[Page]:
    """Give a page of a context of its own, which must not complain: neither of errors nor in its log.

    :param but: what it may say: complaints with one of these in them.
    :param options: of the context.
    """
    context = browser.new_context(**options)
    context.set_default_timeout(patience_ms)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(f"{said.type}: {said.text}"))
    try:
        yield page
    finally:
        context.close()
    assert [one for one in complaints if not any(word in one for word in but)] == []


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
