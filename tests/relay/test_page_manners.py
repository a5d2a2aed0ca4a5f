"""The page for everybody: contrast, names, keys, little motion, small screens, several fingers; and its terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.relay.relays import REPO, Relay, wait
from tests.relay.screens import Streamer
from tests.relay.test_page import _PATIENCE_MS, browser, enter, relay, streamer, watch

__all__ = ["browser", "relay", "streamer"]  # the fixtures

WEB = REPO / "cfctl/relay/web/page"


@contextmanager
def opened(browser: Browser, relay: Relay, **options: Any) -> Iterator[Page]:
    """Give a page that has entered, as somebody's browser is set."""
    context = browser.new_context(**options)
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    try:
        enter(page, relay, "operator")
        yield page
    finally:
        context.close()


def views(page: Page) -> Iterator[str]:
    """Show everything that the page has to show, one after the other."""
    yield "list"
    watch(page)
    page.wait_for_selector("#stage[data-picture=true]")
    page.get_by_role("button", name="Statistics").click()
    expect(page.locator("#stats")).to_contain_text("frames/s", timeout=_PATIENCE_MS)
    yield "device"
    page.get_by_role("button", name="Paste").click()
    yield "typing"
    page.get_by_role("button", name="Cancel").click()
    # The console's device is none of this host's: its looks are the same.
    page.evaluate("""() => {
      for (const id of ["tabs", "panel-console", "term-again"]) document.getElementById(id).hidden = false;
      document.getElementById("panel-screen").hidden = true;
      document.getElementById("term-note").textContent = "The serial console.";
      document.getElementById("term-lines").innerHTML = [...Array(16).keys()]
        .map((n) => `<div><span class="f${n}">colour</span></div>`).join("") + "<span class=inverse>inverse</span>";
    }""")
    yield "console"
    page.evaluate("location.hash = '#/nothing'")
    expect(page.locator("#veil-title")).to_have_text("There is no such device", timeout=_PATIENCE_MS)
    yield "nothing"
    page.evaluate("location.hash = '#/'")
    expect(page.get_by_role("heading", name="Devices")).to_be_visible(timeout=_PATIENCE_MS)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=_PATIENCE_MS)
    yield "door"
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("alert")).to_be_visible(timeout=_PATIENCE_MS)
    yield "door, refused"


#: What changes its colour by and by has changed it.
_SETTLED = """() => Promise.allSettled(
  document.getAnimations().filter((one) => one instanceof CSSTransition).map((one) => one.finished))"""

#: Every visible text with its contrast (WCAG 2.2, 1.4.3): colours are drawn, so that the browser reckons them.
_CONTRASTS = """() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const to = canvas.getContext("2d", { willReadFrequently: true });
  const paint = (colour) => { to.fillStyle = colour; to.fillRect(0, 0, 1, 1); };
  const light = () => {
    const [r, g, b] = [...to.getImageData(0, 0, 1, 1).data].map((one) => one / 255)
      .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim()
      || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true })
      || element.closest("[disabled], option, template, noscript, script, .toast.gone, .toast:empty")) continue;
    const backs = [];
    for (let one = element; one; one = one.parentElement) backs.unshift(getComputedStyle(one).backgroundColor);
    paint("#fff");
    backs.forEach(paint);
    const back = light();
    paint(getComputedStyle(element).color);
    const fore = light();
    const ratio = (Math.max(back, fore) + 0.05) / (Math.min(back, fore) + 0.05);
    found.push([texts.currentNode.data.trim().slice(0, 40), Math.round(100 * ratio) / 100]);
  }
  return found;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read(browser: Browser, relay: Relay, streamer: Streamer, theme: Any) -> None:
    with opened(browser, relay, color_scheme=theme) as page:
        for view in views(page):
            page.evaluate(_SETTLED)
            contrasts = page.evaluate(_CONTRASTS)
            assert contrasts, view
            assert [one for one in contrasts if one[1] < 4.5] == [], view


#: What can be used and has no name that is read out.
_NAMELESS = """() => [...document.querySelectorAll("#main button, #main a, #main input, #main textarea, #main select,"
  + " #main [tabindex]")].filter((one) => one.checkVisibility() && one.type !== "hidden")
  .filter((one) => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim()))
  .map((one) => one.outerHTML)"""

#: Buttons that stick out, lie over each other, or are smaller than a finger hits (WCAG 2.2, 2.5.8: 24 pixels).
_MISPLACED = """() => {
  const bad = [];
  if (document.documentElement.scrollWidth > innerWidth) bad.push(`${document.documentElement.scrollWidth} wide`);
  const modal = document.querySelector("dialog[open]");
  const all = [...document.querySelectorAll("button, a, select, #hands, #name, #live, .badge, h1")]
    .filter((one) => one.checkVisibility() && (!modal || modal.contains(one)))
    .map((one) => [one, one.getBoundingClientRect()]);
  for (const [one, box] of all) {
    const about = one.id || one.textContent.trim();
    if (box.left < -0.5 || box.right > innerWidth + 0.5 || box.bottom > innerHeight + 0.5)
      bad.push(`${about} sticks out`);
    if (one.matches("button, a, select") && (box.width < 24 || box.height < 24)) bad.push(`${about} is small`);
    if (one.matches("button") && one.scrollWidth > one.clientWidth + 1) bad.push(`${about} is cut`);
    for (const [other, its] of all) {
      if (one === other || one.contains(other) || other.contains(one)) continue;
      if (box.left < its.right - 0.5 && its.left < box.right - 0.5
        && box.top < its.bottom - 0.5 && its.top < box.bottom - 0.5)
        bad.push(`${about} lies over ${other.id || other.textContent.trim()}`);
    }
  }
  return bad;
}"""


@pytest.mark.parametrize("size", [(1280, 800), (390, 844), (320, 568), (844, 390)], ids=str)
def test_it_fits_every_screen(browser: Browser, relay: Relay, streamer: Streamer, size: tuple[int, int]) -> None:
    with opened(browser, relay, viewport={"width": size[0], "height": size[1]}) as page:
        for view in views(page):
            assert page.evaluate(_MISPLACED) == [], view
            assert page.evaluate(_NAMELESS) == [], view


def test_what_is_said_on_a_phone_lies_over_no_button(browser: Browser, relay: Relay, streamer: Streamer) -> None:
    with opened(browser, relay, viewport={"width": 390, "height": 844}) as page:
        watch(page)
        page.evaluate(
            "import('/static/page.js').then(({ say }) => say('root controls. Press Take control to touch it.'))"
        )
        expect(page.locator("#status")).to_contain_text("Press Take control", timeout=_PATIENCE_MS)
        said, tools = page.locator("#status").bounding_box(), page.locator("#tools").bounding_box()
        assert said is not None
        assert tools is not None
        assert said["y"] + said["height"] <= tools["y"]
        # In one line, where there is room for it.
        assert said["height"] < 50


def test_what_is_no_error_of_ours_is_told_in_words(terminal: Page) -> None:
    asked = """async (path) => { const { ask } = await import("/static/ask.js");
      try { await ask(path); } catch (error) { return [error.status, error.message]; } }"""
    assert terminal.evaluate(asked, "/infra_config") == [401, "The token or link counts no more."]
    terminal.context.set_offline(True)
    try:
        assert terminal.evaluate(asked, "/session") == [0, "The relay cannot be reached."]
    finally:
        terminal.context.set_offline(False)


_FOCUS = """() => { const one = document.activeElement; const style = getComputedStyle(one);
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return [one.id || one.textContent.trim(), ring]; }"""


def test_on_a_phone_on_its_side_the_device_has_most_of_the_height(
    browser: Browser, relay: Relay, streamer: Streamer
) -> None:
    with opened(browser, relay, viewport={"width": 844, "height": 390}) as page:
        watch(page)
        page.wait_for_selector("#stage[data-picture=true]")
        stage = page.locator("#stage").bounding_box()
        assert stage is not None
        assert stage["height"] > 0.7 * 390
        # What is not written is read out.
        assert page.get_by_role("button", name="Volume down").is_visible()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    browser: Browser, relay: Relay, streamer: Streamer
) -> None:
    with opened(browser, relay) as page:
        page.locator(".card").filter(has_text="pad-1").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#stage[data-picture=true]")
        wait(lambda: page.evaluate("!document.getElementById('paste').disabled"), "the buttons")
        assert page.evaluate(_FOCUS) == ["screen", True]
        # The screen keeps Tab for the device; this pair of keys leaves it.
        page.keyboard.press("Tab")
        assert page.evaluate(_FOCUS)[0] == "screen"
        page.keyboard.press("Shift+Escape")
        names = ["Back", "Home", "Menu", "Power", "Volume down", "Volume up", "rotate", "paste", "full"]
        names += ["microphone", "camera", "numbers"]
        seen = [page.evaluate(_FOCUS)]
        while len(seen) < len(names):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(_FOCUS))
        assert seen == [[name, True] for name in names]
        assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
        page.keyboard.press("Space")
        assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
        before = len(streamer.heard("device-control"))
        page.get_by_role("button", name="Home").focus()
        page.keyboard.press("Enter")
        wait(lambda: len(streamer.heard("device-control")) >= before + 2, "the button")
        states = [one["button_state"] for one in streamer.heard("device-control")[before:]]
        assert states == ["down", "up"]


def test_who_wants_little_motion_gets_none(browser: Browser, relay: Relay) -> None:
    names = {}
    for wish in ("no-preference", "reduce"):
        with opened(browser, relay, reduced_motion=wish) as page:
            page.evaluate("location.hash = '#/nothing'")
            page.wait_for_selector("#veil")
            page.evaluate("document.getElementById('veil').dataset.busy = true")
            names[wish] = page.evaluate("getComputedStyle(document.querySelector('.spinner')).animationName")
    assert names == {"no-preference": "turn", "reduce": "none"}


def test_several_fingers_at_once(browser: Browser, relay: Relay, streamer: Streamer) -> None:
    with opened(browser, relay, has_touch=True) as page:
        watch(page)
        page.wait_for_selector("#stage[data-picture=true]")
        wait(lambda: page.evaluate("!document.getElementById('paste').disabled"), "control")
        before = len(streamer.heard("input-channel"))
        box = page.locator("#screen").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def fingers(kind: str, *places: tuple[float, float]) -> None:
            points = [{"x": x + dx, "y": y + dy, "id": number} for number, (dx, dy) in enumerate(places)]
            devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        devtools = page.context.new_cdp_session(page)
        fingers("touchStart", (-60, 0))
        fingers("touchStart", (-60, 0), (60, 0))
        fingers("touchMove", (-60, -60), (60, 60))
        fingers("touchEnd")

        def news() -> list[Any]:
            return [one for one in streamer.heard("input-channel")[before:] if one["type"] == "multi-touch"]

        wait(lambda: sum(not one["down"] for one in news()) == 2, "both fingers to be lifted")
        last: dict[int, tuple[int, int]] = {}
        most = 0
        for one in news():
            (finger,) = one["id"]
            if one["down"]:
                last[finger] = one["x"][0], one["y"][0]
                most = max(most, len(last))
                ends = dict(last)
            else:
                del last[finger]
        assert most == 2
        (left, up), (right, down) = ends.values()
        assert left < 160 < right
        assert up < 120 < down


#: What a serial line writes, and what is seen: [columns, rows, pieces of text, lines].
_TERMINAL: list[tuple[str, int, int, list[str], str]] = [
    ("lines", 80, 24, ["one\r\ntwo\r\n"], "one\ntwo"),
    ("a carriage return writes over", 80, 24, ["12345\rab"], "ab345"),
    ("backspace and blank", 80, 24, ["abc\b \bd"], "abd"),
    ("tabs", 80, 24, ["a\tb"], "a       b"),
    ("a long line goes on below", 4, 3, ["abcdef"], "abcd\nef"),
    ("it scrolls", 10, 2, ["1\r\n2\r\n3"], "1\n2\n3"),
    ("colours are no text", 80, 24, ["\x1b[1;31mred\x1b[0m, \x1b[38;5;200mpink\x1b[m"], "red, pink"),
    ("a sequence in pieces", 80, 24, ["a\x1b", "[3", "1mb"], "ab"),
    ("erase to the end of a line", 80, 24, ["abcdef\x1b[3D\x1b[K"], "abc"),
    ("erase the screen", 80, 4, ["a\r\nb\x1b[2J\x1b[Hc"], "c"),
    ("places", 10, 4, ["\x1b[2;3Hx\x1b[1;1Hy"], "y\n  x"),
    ("deleted and inserted signs", 80, 24, ["abcd\r\x1b[2P\x1b[@-"], "-cd"),
    ("a title is no text", 80, 24, ["\x1b]0;root@phone\x07# "], "#"),
    ("a broken sequence ends", 80, 24, ["a\x1b[3\x01b"], "a3b"),
    ("an umlaut", 80, 24, ["ä\x07"], "ä"),
    (
        "an editor leaves what was before",
        80,
        3,
        ["$ vi\r\n\x1b[?1049h\x1b[Hfile\r\n~\r\n~", "\x1b[?1049l$ "],
        "$ vi\n$",
    ),
    ("an editor has a screen of its own", 80, 3, ["$ vi\r\n\x1b[?1049h\x1b[Hfile\r\n~\r\n~"], "file\n~\n~"),
    ("what scrolls there is gone", 80, 2, ["a\x1b[?47h\x1b[H1\r\n2\r\n3\r\n4"], "3\n4"),
    ("the older way to another screen", 80, 2, ["a\x1b[?1047hb\x1b[?1047lc"], "a c"),
    ("a part scrolls", 80, 4, ["\x1b[4;1Hend\x1b[1;3r1\r\n2\r\n3\r\n4"], "1\n2\n3\n4\nend"),
    ("a part in the middle scrolls", 80, 4, ["top\x1b[4;1Hend\x1b[2;3r\x1b[2H1\r\n2\r\n3"], "top\n2\n3\nend"),
    ("it scrolls back", 80, 3, ["1\r\n2\r\n3\x1b[H\x1bMnew"], "new\n1\n2"),
    ("a part scrolls back", 80, 3, ["1\r\n2\r\nend\x1b[1;2r\x1b[H\x1bM0"], "0\n1\nend"),
    ("inserted lines", 80, 4, ["1\r\n2\r\n3\r\n4\x1b[2H\x1b[2Lx"], "1\nx\n\n2"),
    ("deleted lines", 80, 4, ["1\r\n2\r\n3\r\n4\x1b[2H\x1b[2M"], "1\n4"),
    ("a line inserted in what scrolls", 80, 4, ["1\r\n2\r\n3\r\n4\x1b[1;3r\x1b[2H\x1b[L"], "1\n\n2\n4"),
    ("no line is inserted outside of it", 80, 3, ["1\r\n2\r\n3\x1b[1;2r\x1b[3H\x1b[L"], "1\n2\n3"),
    ("scrolled from afar", 80, 3, ["1\r\n2\r\n3\x1b[2;3r\x1b[S"], "1\n3"),
    ("scrolled back from afar", 80, 3, ["1\r\n2\r\n3\x1b[T"], "\n1\n2"),
    ("no more lines than there are", 80, 3, ["1\r\n2\x1b[H\x1b[99999M\x1b[99999L\x1b[99999Tx"], "x"),
    ("the cursor comes back", 80, 3, ["ab\x1b7\x1b[3;9H\x1b8c"], "abc"),
    ("signs are inserted", 80, 24, ["bd\r\x1b[4ha\x1b[C\x1b[4lc"], "abc"),
    ("signs at the end of a line", 4, 3, ["abcd\r\x1b[4hx\x1b[l"], "xabc"),
    ("who moves stays in what scrolls", 80, 4, ["\x1b[2;3r\x1b[2H\x1b[9Aa\x1b[9Bb"], "\na\n b"),
    ("what is marked is another sequence", 80, 4, ["1\r\n2\x1b[?2;3r\x1b[>4m\x1b[1 q3"], "1\n23"),
    ("a reset ends everything", 80, 3, ["a\x1b[?1049h\x1b[2;3r\x1b[4h\x1bcb"], "b"),
]


@pytest.mark.parametrize(
    ("columns", "rows", "pieces", "seen"), [one[1:] for one in _TERMINAL], ids=[one[0] for one in _TERMINAL]
)
def test_what_a_terminal_makes_of_it(terminal: Page, columns: int, rows: int, pieces: list[str], seen: str) -> None:
    feed = """async ([cols, rows, pieces]) => {
      const { Vt } = await import("/static/vt.js");
      const vt = new Vt({ cols, rows });
      for (const piece of pieces) vt.feed(piece);
      return vt.text;
    }"""
    assert terminal.evaluate(feed, [columns, rows, pieces]) == seen


@pytest.fixture(scope="module")
def terminal(browser: Browser, relay: Relay) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(relay.listeners["web"]["address"])
    yield page
    context.close()


def test_a_terminal_keeps_so_much_and_answers_where_it_is(terminal: Page) -> None:
    found = terminal.evaluate("""async () => {
      const { Vt } = await import("/static/vt.js");
      const replies = [];
      const vt = new Vt({ cols: 80, rows: 24, scrollback: 100, reply: (text) => replies.push(text) });
      for (let n = 0; n < 500; n += 1) vt.feed(`${n}\\r\\n`);
      vt.feed("\\x1b[999;999H\\x1b[6n");
      const last = vt.lines[98].cells.map((cell) => cell.sign).join("");
      return [vt.lines.length, last, vt.dirty.size <= 100, replies];
    }""")
    assert found == [100, "499", True, ["\x1b[24;80R"]]


def test_a_terminal_tells_what_else_a_program_wants_of_it(terminal: Page) -> None:
    found = terminal.evaluate("""async () => {
      const { Vt } = await import("/static/vt.js");
      const { bytesOf } = await import("/static/console.js");
      const vt = new Vt();
      const said = () => [vt.cursor, ["ArrowUp", "Home", "Delete"].map((key) => bytesOf({ key }, vt.application))];
      const before = said();
      vt.feed("\\x1b[?1h\\x1b[?25l");
      const meanwhile = said();
      vt.feed("\\x1b[?1;25h\\x1b[?1l");
      return [before, meanwhile, said()];
    }""")
    plain = [True, ["\x1b[A", "\x1b[H", "\x1b[3~"]]
    assert found == [plain, [False, ["\x1bOA", "\x1bOH", "\x1b[3~"]], plain]


def test_a_screen_that_changes_its_size_below_an_editor(terminal: Page) -> None:
    found = terminal.evaluate("""async () => {
      const { Vt } = await import("/static/vt.js");
      const vt = new Vt({ cols: 20, rows: 5 });
      vt.feed("one\\r\\ntwo\\x1b[?1049h\\x1b[H1\\r\\n2\\r\\n3\\r\\n4\\r\\n5");
      vt.resize(20, 3);
      const small = [vt.text, vt.lines.length];
      vt.resize(20, 8);
      vt.feed("!\\x1b[?1049l");
      return [small, vt.text, vt.lines.length];
    }""")
    assert found == [["3\n4\n5", 3], "one\ntwo", 8]


@pytest.mark.parametrize("file", sorted(WEB.glob("*.html")) + sorted(WEB.glob("*.js")), ids=lambda file: file.name)
def test_no_code_stands_in_the_pages_and_nothing_comes_from_elsewhere(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=\"|javascript:", text)
    assert not re.search(r"\b(eval|Function)\(|innerHTML|insertAdjacentHTML|document\.write", text)
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)
