"""A host package's own page in Chromium, by way of the relay: its files, our connector, WebSocket or polling."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from tests.relay.browsers import chromium
from tests.relay.relays import PATIENCE_S, Relay, running, wait
from tests.relay.screens import Streamer, streaming

_FILES = {
    "/client.html": Path(__file__).with_name("client.html").read_bytes(),
    "/large.js": b"// " + 5_000_000 * b"a",
}

#: A camera and a microphone that every Chromium has: a picture that moves, a beep.
_FAKE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


class Assets(BaseHTTPRequestHandler):
    """What a stock streamer serves of its host package."""

    asked: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        content = _FILES.get(urlsplit(self.path).path)
        self.send_response(200 if content else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its own signature
        """Say nothing."""


@pytest.fixture(scope="module")
def assets() -> Iterator[ThreadingHTTPServer]:
    Assets.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Assets)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with running(web="127.0.0.1:0") as relay:
        yield relay


@pytest.fixture(scope="module")
def streamer(relay: Relay, assets: ThreadingHTTPServer) -> Iterator[Streamer]:
    with streaming(relay, port=assets.server_port, audio=True) as streamer:
        yield streamer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(*_FAKE) as browser:
        yield browser


@pytest.fixture(params=["websocket", "polling"])
def page(request: pytest.FixtureRequest, relay: Relay, streamer: Streamer, browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    if request.param == "polling":
        page.add_init_script("delete window.WebSocket")
    address = relay.listeners["web"]["address"]
    entered = page.request.post(
        f"{address}/session", data=json.dumps({"token": relay.token("operator")}), headers={"Origin": address}
    )
    assert entered.ok
    page.goto(f"{address}/devices/pad-1/files/client.html?quality=1")
    page.wait_for_function("document.getElementById('video').videoWidth === 320")
    yield page
    context.close()


def test_its_picture_sound_and_channels(page: Page, streamer: Streamer) -> None:
    assert page.evaluate("streamIds()") == ["audio-0", "display_0"]
    assert page.evaluate("deviceInfo.hardware.CPUs") == "2"
    (path, headers), *_ = Assets.asked
    assert path == "/client.html?quality=1"
    assert not {"cookie", "authorization"} & set(headers)
    for label in ("input-channel", "adb-channel", "device-control", "sensors-channel"):
        page.wait_for_function("(label) => isOpen(label)", arg=label)
    large = page.request.get(page.url.replace("client.html?quality=1", "large.js"))
    assert large.body() == _FILES["/large.js"]
    touch = {"type": "multi-touch", "id": [7], "x": [10], "y": [20], "down": 1, "device_label": "display_0"}
    count = len(streamer.heard("input-channel"))
    page.evaluate("(touch) => say('input-channel', touch)", json.dumps(touch))
    wait(lambda: streamer.heard("input-channel")[count:], "the touch")
    page.evaluate("say('adb-channel', [67, 78, 88, 78])")
    page.wait_for_function("heard.some(([label, data]) => label === 'adb-channel' && data === '4:CNXN')")
    page.evaluate("say('sensors-channel', '0 0 90')")
    page.wait_for_function("heard.some(([label, data]) => label === 'sensors-channel' && data.endsWith('0:0:90 '))")


def test_its_microphone_and_camera(page: Page, streamer: Streamer) -> None:
    # Whoever looked before may still be thought to control, for some seconds: pages that poll say no farewell.
    page.wait_for_function("isOpen('input-channel')")
    touched = len(streamer.heard("input-channel"))

    def touches() -> bool:
        page.evaluate("""say('input-channel', '{"type":"mouseMove","x":1,"y":1}')""")
        return len(streamer.heard("input-channel")) > touched

    wait(touches, "it to control")
    sounds, pictures = len(streamer.heard("audio")), len(streamer.heard("video"))
    page.evaluate("bring({ audio: true, video: { width: 320, height: 240 } })")
    page.wait_for_function("window.agreed")
    wait(lambda: len(streamer.heard("audio")) > sounds + 50, "the microphone")
    wait(lambda: len(streamer.heard("video")) > pictures + 20, "the camera")
    shown = "document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames"
    count = page.evaluate(shown)
    page.wait_for_function(f"{shown} > {count + 20}")
