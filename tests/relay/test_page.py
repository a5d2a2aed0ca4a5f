"""The page in Chromium: a picture that moves, touch and keys as they were sent, rotation, and coming back."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.relay.browsers import attentive, chromium
from tests.relay.relays import PATIENCE_S, Relay, running, wait
from tests.relay.screens import Streamer, streaming

#: Milliseconds, for whatever Playwright waits for.
_PATIENCE_MS = 1000 * PATIENCE_S


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with running(web="127.0.0.1:0") as relay:
        yield relay


@pytest.fixture(scope="module")
def streamer(relay: Relay) -> Iterator[Streamer]:
    with streaming(relay) as streamer:
        yield streamer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, relay: Relay) -> Iterator[Page]:
    """Give a page that has entered with an operator's token, and must not complain."""
    # The tests themselves look at the pixels of a canvas of the page's; the browser has an opinion on that.
    with attentive(browser, patience_ms=_PATIENCE_MS, but=("getImageData",)) as page:
        enter(page, relay, "operator")
        yield page


def enter(page: Page, relay: Relay, role: str) -> None:
    page.goto(relay.listeners["web"]["address"])
    page.get_by_label("Token").fill(relay.token(role))
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("heading", name="Devices")).to_be_visible(timeout=_PATIENCE_MS)


#: The colour in the middle of the left quarter: what a person sees there.
_COLOUR = """() => {
  const video = document.getElementById("video");
  if (!video || !video.videoWidth) return null;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  const to = canvas.getContext("2d");
  to.drawImage(video, 0, 0);
  return [...to.getImageData(canvas.width / 4, canvas.height / 2, 1, 1).data].join(",");
}"""


def colours(page: Page, count: int) -> set[str]:
    """Return the colours that the screen shows until there were so many."""
    seen: set[str] = set()

    def look() -> bool:
        colour = page.evaluate(_COLOUR)
        if colour:
            seen.add(colour)
        return len(seen) >= count

    wait(look, f"{count} colours")
    return seen


def watch(page: Page, name: str = "pad-1") -> None:
    page.evaluate(f"location.hash = '#/{name}'")
    page.wait_for_selector("#stage[data-connected=true]")


def test_the_picture_arrives_and_changes(page: Page, streamer: Streamer) -> None:
    watch(page)
    assert len(colours(page, 4)) >= 4
    assert page.evaluate("document.getElementById('video').videoWidth") == 320


def test_keys_and_touches_arrive_as_they_were_sent(page: Page, streamer: Streamer) -> None:
    watch(page)
    colours(page, 1)
    before = len(streamer.heard("input-channel"))

    def news() -> list[Any]:
        return streamer.heard("input-channel")[before:]

    page.locator("#screen").focus()
    page.keyboard.press("a")
    wait(lambda: len(news()) >= 2, "a key")
    assert news() == [
        {"type": "keyboard", "keycode": "KeyA", "event_type": "keydown"},
        {"type": "keyboard", "keycode": "KeyA", "event_type": "keyup"},
    ]
    before += 2
    box = page.locator("#screen").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.up()
    wait(lambda: len(news()) >= 2, "a touch")
    down, up = news()
    assert (down["type"], down["down"], up["down"]) == ("multi-touch", 1, 0)
    assert down["id"] == up["id"] == [0]
    assert abs(down["x"][0] - 160) <= 1
    assert abs(down["y"][0] - 120) <= 1
    assert down["device_label"] == "display_0"


def test_buttons_and_rotation(page: Page, streamer: Streamer) -> None:
    watch(page)
    colours(page, 1)
    page.get_by_role("button", name="Volume up").click()
    wait(lambda: len(streamer.heard("device-control")) >= 2, "a button")
    assert streamer.heard("device-control")[-2:] == [
        {"command": "volumeup", "button_state": "down"},
        {"command": "volumeup", "button_state": "up"},
    ]
    page.get_by_role("button", name="Rotate").click()
    wait(lambda: streamer.heard("sensors-channel"), "the angle")
    assert streamer.heard("sensors-channel")[-1] == [0, 0, 90]
    wait(lambda: page.evaluate("document.getElementById('video').style.transform === 'rotate(90deg)'"), "the page")


def test_pasting_is_typing(page: Page, streamer: Streamer) -> None:
    watch(page)
    colours(page, 1)
    before = len(streamer.heard("input-channel"))
    page.get_by_role("button", name="Paste").click()
    page.get_by_label("What is typed").fill("Hi!\n€")
    page.get_by_role("button", name="Type it").click()
    expect(page.locator("#status")).to_contain_text("1 character was left out", timeout=_PATIENCE_MS)
    wait(lambda: len(streamer.heard("input-channel")) >= before + 12, "the keys")
    typed = [one["keycode"] for one in streamer.heard("input-channel")[before:] if one["event_type"] == "keydown"]
    assert typed == ["ShiftLeft", "KeyH", "KeyI", "ShiftLeft", "Digit1", "Enter"]


def test_statistics(page: Page, streamer: Streamer) -> None:
    watch(page)
    page.get_by_role("button", name="Statistics").click()
    expect(page.locator("#stats")).to_contain_text("frames/s", timeout=_PATIENCE_MS)
    wait(
        lambda: page.evaluate("/[1-9][0-9]* frames.s/.test(document.getElementById('stats').textContent)"), "the page"
    )
    expect(page.locator("#stats")).to_contain_text("round trip")


def test_the_list_shows_a_picture(page: Page, streamer: Streamer) -> None:
    card = page.locator(".card").filter(has_text="pad-1")
    expect(card).to_be_visible(timeout=_PATIENCE_MS)
    wait(
        lambda: page.evaluate("""() => { const canvas = [...document.querySelectorAll(".card")]
          .find((card) => card.textContent.includes("pad-1"))?.querySelector("canvas");
        return canvas && canvas.width === 320
          && canvas.getContext("2d").getImageData(80, 120, 1, 1).data.some((part, at) => at < 3 && part > 100); }"""),
        "the page",
    )


def test_whoever_looks_only_touches_nothing(browser: Browser, relay: Relay, streamer: Streamer) -> None:
    context = browser.new_context()
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    enter(page, relay, "viewer")
    watch(page)
    colours(page, 2)
    expect(page.locator("#hands")).to_contain_text("View only", timeout=_PATIENCE_MS)
    page.locator("#screen").click()
    expect(page.locator("#status")).to_have_text("This link or token may only look.", timeout=_PATIENCE_MS)
    before = len(streamer.heard("input-channel"))
    page.locator("#screen").focus()
    page.keyboard.press("b")
    wait(lambda: page.evaluate("document.querySelector('#tools [data-press]').disabled"), "the page")
    stats = "async () => (await (await fetch('/api/devices/pad-1/stats')).json()).refused"
    wait(lambda: page.evaluate(stats), "a refusal")
    assert streamer.heard("input-channel")[before:] == []
    context.close()


def test_who_touches_what_another_controls_is_told_how(browser: Browser, page: Page, relay: Relay) -> None:
    with streaming(relay, device_id="pad-4"):
        watch(page, "pad-4")
        colours(page, 2)
        page.locator("#screen").click()
        expect(page.locator("#hands")).to_contain_text("You control", timeout=_PATIENCE_MS)
        context = browser.new_context()
        other = context.new_page()
        enter(other, relay, "operator")
        watch(other, "pad-4")
        expect(other.locator("#hands")).to_contain_text("controls · 2 viewers", timeout=_PATIENCE_MS)
        other.locator("#screen").click()
        expect(other.locator("#status")).to_contain_text("Press Take control", timeout=_PATIENCE_MS)
        # Nor is anything lost in silence: no text, no key, no button.
        said = other.locator("#status")
        forget = "document.getElementById('status').textContent = ''"
        in_vain: list[Callable[[], object]] = [
            *(other.get_by_role("button", name=name).click for name in ("Paste", "Home", "Rotate")),
            lambda: other.locator("#screen").press("a"),
        ]
        for vain in in_vain:
            other.evaluate(forget)
            vain()
            expect(said).to_contain_text("Press Take control", timeout=_PATIENCE_MS)
            assert not other.locator("#typing").is_visible()
        # Beside the console, which nobody controls, it would mean nothing. (The device is none of this host's.)
        other.evaluate("document.getElementById('tabs').hidden = false")
        other.get_by_role("tab", name="Console").click()
        expect(other.get_by_role("button", name="Take control")).to_be_hidden(timeout=_PATIENCE_MS)
        expect(other.locator("#hands")).to_be_hidden(timeout=_PATIENCE_MS)
        other.get_by_role("tab", name="Screen").click()
        # A text that is being typed ends there, and says how much of it.
        page.get_by_role("button", name="Paste").click()
        page.get_by_label("What is typed").fill("a" * 2000)
        page.get_by_role("button", name="Type it").click()
        other.get_by_role("button", name="Take control").click()
        expect(other.locator("#hands")).to_contain_text("You control", timeout=_PATIENCE_MS)
        expect(page.locator("#status")).to_contain_text("characters were not typed", timeout=_PATIENCE_MS)
        context.close()


def test_nobody_takes_control_of_what_is_gone(browser: Browser, page: Page, relay: Relay) -> None:
    context = browser.new_context()
    with streaming(relay, device_id="pad-5"):
        watch(page, "pad-5")
        other = context.new_page()
        enter(other, relay, "operator")
        watch(other, "pad-5")
        page.locator("#screen").click()
        expect(page.get_by_role("button", name="Give control away")).to_be_visible(timeout=_PATIENCE_MS)
        expect(other.get_by_role("button", name="Take control")).to_be_visible(timeout=_PATIENCE_MS)
    expect(page.get_by_role("button", name="Give control away")).to_be_hidden(timeout=_PATIENCE_MS)
    expect(other.get_by_role("button", name="Take control")).to_be_hidden(timeout=_PATIENCE_MS)
    context.close()


def test_the_console_of_what_is_gone_is_left(page: Page, relay: Relay) -> None:
    with streaming(relay, device_id="pad-7"):
        watch(page, "pad-7")
        page.evaluate("document.getElementById('tabs').hidden = false")
        page.get_by_role("tab", name="Console").click()
        expect(page.locator("#panel-screen")).to_be_hidden(timeout=_PATIENCE_MS)
        # The console of what is no device of this host's cannot be had; the page says so, and the browser too.
        expect(page.locator("#term-note")).to_contain_text("pad-7", timeout=_PATIENCE_MS)
    expect(page.locator("#veil-title")).to_be_visible(timeout=_PATIENCE_MS)
    expect(page.locator("#veil-title")).to_have_text("There is no such device", timeout=_PATIENCE_MS)


def test_a_relay_that_is_started_again_still_knows_its_browsers(browser: Browser) -> None:
    context = browser.new_context()
    context.set_default_timeout(_PATIENCE_MS)
    listing, page = context.new_page(), context.new_page()
    try:
        with running(web="127.0.0.1:0") as relay:
            with streaming(relay, device_id="pad-6"):
                enter(listing, relay, "operator")
                page.goto(relay.listeners["web"]["address"] + "/#/pad-6")
                colours(page, 2)
                relay.stop()
                expect(listing.locator("#status")).to_have_text("The relay cannot be reached.", timeout=_PATIENCE_MS)
                expect(page.locator("#veil-title")).to_have_text("The relay cannot be reached.", timeout=_PATIENCE_MS)
            relay.start()
            # What was said is said no more.
            expect(listing.locator("#status")).to_have_text("", timeout=_PATIENCE_MS)
            expect(listing.get_by_role("heading", name="Devices", exact=True)).to_be_visible(timeout=_PATIENCE_MS)
            with streaming(relay, device_id="pad-6"):
                expect(page.locator("#live")).to_have_text("Live", timeout=_PATIENCE_MS)
                colours(page, 2)
            # Whose token is revoked is out, and is told why.
            (token,) = relay.store.all()
            relay.store.revoke(token.id)
            for one in (listing, page):
                said = "The token or link counts no more"
                expect(one.get_by_role("alert")).to_contain_text(said, timeout=_PATIENCE_MS)
    finally:
        context.close()


def test_what_is_no_address_is_no_device(page: Page) -> None:
    page.evaluate("location.hash = '#/%'")
    expect(page.locator("#veil-title")).to_have_text("There is no such device", timeout=_PATIENCE_MS)


def test_a_wrong_token_is_said_to_be_wrong(browser: Browser, relay: Relay) -> None:
    page = browser.new_page()
    page.goto(relay.listeners["web"]["address"])
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Enter").click()
    said = "The relay does not know that token, or it has expired or was revoked."
    expect(page.get_by_role("alert")).to_have_text(said, timeout=_PATIENCE_MS)
    page.goto(relay.listeners["web"]["address"] + "/enter#code=wrong")
    expect(page.get_by_role("alert")).to_have_text("The link was used, or is too old.", timeout=_PATIENCE_MS)
    page.close()


def test_a_streamer_that_dies_and_returns(page: Page, relay: Relay) -> None:
    with streaming(relay, device_id="pad-2") as first:
        watch(page, "pad-2")
        colours(page, 2)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    with streaming(relay, device_id="pad-2") as second:
        wait(lambda: second.events("told"), "the relay to look again")
        colours(page, 3)


_KEEP = """
const Own = WebSocket;
window.sockets = [];
window.WebSocket = class extends Own { constructor(...all) { super(...all); window.sockets.push(this); } };
"""


def test_a_connection_that_is_lost_is_made_again(browser: Browser, relay: Relay, streamer: Streamer) -> None:
    context = browser.new_context()
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    page.add_init_script(_KEEP)
    try:
        enter(page, relay, "operator")
        watch(page)
        colours(page, 2)
        expect(page.locator("#live")).to_have_text("Live", timeout=_PATIENCE_MS)
        # What was said meanwhile is kept: it may last for less than a look.
        page.evaluate("""() => { const live = document.getElementById("live"); window.said = [];
          new MutationObserver(() => said.push(live.textContent)).observe(live, { childList: true });
          sockets.at(-1).close(); }""")
        wait(lambda: page.evaluate("said.at(-1) === 'Live' && said.includes('Reconnecting')"), "another connection")
        assert page.evaluate("sockets.length") == 2
        colours(page, 2)
    finally:
        context.close()
