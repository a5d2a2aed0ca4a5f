"""The page's microphone and camera in Chromium: whoever controls brings them, and takes them away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.relay.browsers import attentive, chromium
from tests.relay.relays import Relay, running, wait
from tests.relay.screens import Streamer, streaming
from tests.relay.test_page import _PATIENCE_MS, enter, watch

#: A camera and a microphone that every Chromium has: a picture that moves, a beep.
_FAKE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with running(web="127.0.0.1:0") as relay:
        yield relay


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(*_FAKE) as browser:
        yield browser


@contextmanager
def opened(browser: Browser, relay: Relay, device: str, role: str = "operator") -> Iterator[Page]:
    """Give a page that shows a device, and must not complain."""
    with attentive(browser, patience_ms=_PATIENCE_MS) as page:
        enter(page, relay, role)
        watch(page, device)
        page.wait_for_selector("#stage[data-picture=true]")
        yield page


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name)


def is_on(page: Page, name: str, *, on: bool = True) -> None:
    expect(button(page, name)).to_have_attribute("aria-pressed", str(on).lower(), timeout=_PATIENCE_MS)


def more(streamer: Streamer, kind: str, count: int = 20) -> None:
    """Wait until so much more of a microphone or camera has come."""
    before = len(streamer.heard(kind))
    wait(lambda: len(streamer.heard(kind)) > before + count, f"more {kind}")


#: How many frames of the device's the page has shown.
_SHOWN = "document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames"


def watched(page: Page, count: int = 20) -> None:
    """Wait until so many frames more of the device's own picture were shown."""
    before = page.evaluate(_SHOWN)
    wait(lambda: page.evaluate(_SHOWN) > before + count, "the device's picture")


def ends(streamer: Streamer, page: Page, kind: str) -> None:
    """Wait until nothing of a microphone or camera comes, while the device's own picture goes on."""

    def still() -> bool:
        before = len(streamer.heard(kind))
        watched(page)
        return len(streamer.heard(kind)) == before

    wait(still, f"an end of {kind}")


@pytest.mark.parametrize("audio", [True, False], ids=["with sound", "without"])
def test_whoever_controls_brings_a_microphone_and_a_camera(relay: Relay, browser: Browser, *, audio: bool) -> None:
    device = f"pad-{int(audio)}"
    with streaming(relay, device_id=device, audio=audio) as streamer, opened(browser, relay, device) as page:
        is_on(page, "Camera", on=False)
        button(page, "Camera").click()
        is_on(page, "Camera")
        more(streamer, "video")
        # It begins with a whole picture, and the device knows how large it will be.
        assert streamer.heard("video")[0] is True
        wait(lambda: streamer.heard("device-control"), "the camera's settings")
        settings = streamer.heard("device-control")[0]
        assert (settings["command"], settings["facing"]) == ("camera_settings", "front")
        assert (settings["width"], settings["height"]) == (1280, 720)
        if audio:
            button(page, "Microphone").click()
            is_on(page, "Microphone")
            more(streamer, "audio")
        # Off, and on again.
        for _ in range(2):
            button(page, "Camera").click()
            is_on(page, "Camera", on=False)
            ends(streamer, page, "video")
            button(page, "Camera").click()
            is_on(page, "Camera")
            more(streamer, "video")
        watched(page)


def test_who_loses_control_is_not_overheard(relay: Relay, browser: Browser) -> None:
    with (
        streaming(relay, device_id="pad-2", audio=True) as streamer,
        opened(browser, relay, "pad-2") as first,
        opened(browser, relay, "pad-2") as second,
        opened(browser, relay, "pad-2", "viewer") as looker,
    ):
        button(first, "Microphone").click()
        is_on(first, "Microphone")
        more(streamer, "audio")
        expect(second.locator("#hands")).to_contain_text("controls", timeout=_PATIENCE_MS)
        button(second, "Microphone").click()
        expect(second.locator("#status")).to_contain_text("take control first", timeout=_PATIENCE_MS)
        is_on(second, "Microphone", on=False)
        expect(button(looker, "Microphone")).to_be_disabled()
        button(second, "Take control").click()
        is_on(first, "Microphone", on=False)
        expect(first.locator("#status")).to_have_text(re.compile("your microphone went off"), timeout=_PATIENCE_MS)
        ends(streamer, first, "audio")
        button(second, "Microphone").click()
        is_on(second, "Microphone")
        more(streamer, "audio")


def test_a_microphone_goes_on_when_the_streamer_returns(relay: Relay, browser: Browser) -> None:
    with streaming(relay, device_id="pad-3", audio=True) as first, opened(browser, relay, "pad-3") as page:
        button(page, "Microphone").click()
        is_on(page, "Microphone")
        more(first, "audio")
        first.process.kill()
        first.process.wait()
        with streaming(relay, device_id="pad-3", audio=True) as second:
            wait(lambda: len(second.heard("audio")) > 20, "the microphone again")
            is_on(page, "Microphone")


def test_a_camera_that_may_not_be_used_is_told_of(relay: Relay, browser: Browser) -> None:
    with streaming(relay, device_id="pad-4"), opened(browser, relay, "pad-4") as page:
        page.evaluate("""() => {
          const denied = new DOMException("Permission denied", "NotAllowedError");
          navigator.mediaDevices.getUserMedia = () => Promise.reject(denied);
        }""")
        button(page, "Camera").click()
        expect(page.locator("#status")).to_have_text("The camera cannot be used: Permission denied")
        is_on(page, "Camera", on=False)
