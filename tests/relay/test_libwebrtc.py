"""Chromium as the streamer: libwebrtc's own descriptions, retransmissions and bandwidth estimation go through."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.relay.browsers import chromium
from tests.relay.relays import PATIENCE_S, Relay, running
from tests.relay.screens import Viewer

#: A streamer, but for its socket: the test carries the records.
_STREAMER = """() => {
  const canvas = document.createElement("canvas");
  canvas.width = 640; canvas.height = 360;
  const paint = canvas.getContext("2d");
  let number = 0;
  setInterval(() => {
    number += 1;
    paint.fillStyle = `hsl(${(number * 9) % 360} 100% 50%)`;
    paint.fillRect(0, 0, 640, 360);
  }, 40);
  const stream = canvas.captureStream(25);
  const peers = new Map();
  window.heard = [];
  window.out = [];
  window.hear = async ({ message_type, client_id, payload }) => {
    if (message_type === "client_disconnected") return peers.get(client_id)?.close();
    if (message_type !== "client_msg") return;
    const say = (message) => window.out.push({ message_type: "forward", client_id, payload: message });
    if (payload.type === "request-offer") {
      const peer = new RTCPeerConnection();
      peers.set(client_id, peer);
      const [track] = stream.getVideoTracks();
      const sender = peer.addTrack(track, stream);
      const control = peer.createDataChannel("device-control");
      control.onopen = () => control.send(JSON.stringify({ event: "VIRTUAL_DEVICE_BOOT_COMPLETED" }, null, "\\t"));
      peer.ondatachannel = ({ channel }) => {
        channel.onmessage = ({ data }) => window.heard.push([channel.label, data]);
      };
      peer.onicecandidate = ({ candidate }) => {
        if (candidate?.candidate) {
          say({ type: "ice-candidate", mid: candidate.sdpMid, mLineIndex: candidate.sdpMLineIndex,
            candidate: candidate.candidate });
        }
      };
      const offer = await peer.createOffer();
      // What a stock streamer calls its display.
      offer.sdp = offer.sdp.replaceAll(stream.id, "display_0").replaceAll(track.id, "display_0");
      await peer.setLocalDescription(offer).catch(async () => peer.setLocalDescription(await peer.createOffer()));
      say({ type: "offer", sdp: offer.sdp });
      peer.ontrack = ({ track }) => {
        window.camera = document.createElement("video");
        window.camera.muted = true;
        window.camera.srcObject = new MediaStream([track]);
        window.camera.play();
      };
    } else if (payload.type === "offer") {
      const peer = peers.get(client_id);
      await peer.setRemoteDescription(payload);
      await peer.setLocalDescription(await peer.createAnswer());
      say({ type: "answer", sdp: peer.localDescription.sdp });
      window.answered = payload.sdp;
    } else if (payload.type === "answer") {
      await peers.get(client_id).setRemoteDescription(payload);
      window.codecs = payload.sdp;
    } else if (payload.type === "ice-candidate") {
      await peers.get(client_id).addIceCandidate(payload.candidate);
    }
  };
}"""

_LOOK = """() => {
  const video = document.getElementById("video");
  return video ? [video.videoWidth, video.getVideoPlaybackQuality().totalVideoFrames] : [0, 0];
}"""


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with running(web="127.0.0.1:0") as relay:
        yield relay


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def look(browser: Browser, relay: Relay) -> Page:
    page = browser.new_context().new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    page.goto(relay.listeners["web"]["address"])
    page.get_by_label("Token").fill(relay.token("operator"))
    page.get_by_role("button", name="Enter").click()
    page.wait_for_selector(".bar")
    page.evaluate("location.hash = '#/chrome'")
    return page


Until = Callable[[str, Any], None]


@contextlib.contextmanager
def streaming(relay: Relay, browser: Browser) -> Iterator[tuple[Page, Until]]:
    """Give a page that is a streamer, and what waits while it carries the streamer's records."""
    streamer = browser.new_page()
    streamer.evaluate(_STREAMER)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with line:
        line.connect(str(relay.root / "run/streamers.sock"))
        line.send(json.dumps({"message_type": "register", "device_id": "chrome", "device_info": {}}).encode())
        line.setblocking(False)

        def carry() -> None:
            try:
                while record := line.recv(1 << 19):
                    message: dict[str, Any] = json.loads(record)
                    streamer.evaluate("(message) => { hear(message); }", message)
            except BlockingIOError:
                pass
            for message in streamer.evaluate("() => window.out.splice(0)"):
                line.send(json.dumps(message).encode())

        def until(what: str, condition: Any) -> None:
            deadline = time.monotonic() + PATIENCE_S
            while not condition():
                assert time.monotonic() < deadline, what
                carry()
                time.sleep(0.02)

        carry()
        yield streamer, until
    streamer.close()


def test_a_camera_reaches_chromium_and_its_own_picture_goes_on(relay: Relay, browser: Browser) -> None:
    """The relay offers in a session that libwebrtc described: by its numbers of codecs, not by aiortc's."""
    with streaming(relay, browser) as (streamer, until):
        viewer = Viewer("viewer", relay.listeners["web"]["address"], relay.token("operator"), "chrome")
        try:
            until("the picture", lambda: viewer.frames)
            viewer.bring("video")
            until("the camera", lambda: streamer.evaluate("window.camera?.videoWidth") == 320)
            count = len(viewer.frames)
            until("the picture to go on", lambda: len(viewer.frames) > count + 20)
            shown = "window.camera.getVideoPlaybackQuality().totalVideoFrames"
            seen = streamer.evaluate(shown)
            until("more of the camera", lambda: streamer.evaluate(shown) > seen + 20)
            assert "VP8/90000" in streamer.evaluate("window.answered")
        finally:
            viewer.end()


def test_chromium_to_chromium(relay: Relay, browser: Browser) -> None:
    with streaming(relay, browser) as (streamer, until):
        pages = [look(browser, relay), look(browser, relay)]
        for page in pages:
            until("the picture", lambda page=page: page.evaluate(_LOOK)[0] == 640)
        before = [page.evaluate(_LOOK)[1] for page in pages]
        until(
            "30 frames more", lambda: all(p.evaluate(_LOOK)[1] > n + 30 for p, n in zip(pages, before, strict=True))
        )
        # VP8 with retransmissions is what was agreed upon, and both viewers cost the streamer one session.
        answer = streamer.evaluate("window.codecs")
        assert "VP8/90000" in answer
        assert "rtx/90000" in answer
        assert "H264" not in answer
        pages[0].locator("#screen").focus()
        pages[0].keyboard.press("z")
        until("the key", lambda: len(streamer.evaluate("window.heard")) >= 2)
        label, data = streamer.evaluate("window.heard")[0]
        assert (label, json.loads(data)["keycode"]) == ("input-channel", "KeyZ")
