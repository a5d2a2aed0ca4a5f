"""The page in Chromium against a real guest: what it shows, what is typed and touched, its console, coming back."""

from __future__ import annotations

import html
import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.relay.browsers import attentive, visit
from tests.relay.relays import wait
from tests.system import sandbox as sandboxes
from tests.system.sandbox import REPO, USER, Sandbox
from tests.system.test_screen_guest import LISTEN, PYTHON, READ, events

URL = "http://127.0.0.1:8443"

#: Milliseconds, for whatever Playwright waits for: the guest boots once more meanwhile.
PATIENCE_MS = 90_000

#: linux/input-event-codes.h: type, code and value.
BTN_LEFT, KEY_POWER, KEY_VOLUMEUP, REL_WHEEL = 0x110, 116, 115, 8

_PIXELS = """() => {
  const video = document.getElementById("video");
  if (!video?.videoWidth) return null;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  return canvas.toDataURL();
}"""


@dataclass
class Lab:
    """A host with a relay and a device, and a browser on it."""

    box: Sandbox
    browser: Browser

    @contextmanager
    def page(self, link: str, *, expected: str = "nothing", **options: Any) -> Iterator[Page]:
        """Give a page that has followed a link; nothing may be said in its log but what is expected."""
        # A VM that starts changes the network that the browser is in.
        but = (expected, "ERR_NETWORK_CHANGED")
        with attentive(self.browser, patience_ms=PATIENCE_MS, but=but, **options) as page:
            page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=URL)
            visit(page, link)
            yield page

    @contextmanager
    def live(self, role: str = "operator", **options: Any) -> Iterator[Page]:
        """Give a page that shows the device."""
        with self.page(self.link(role), **options) as page:
            expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE_MS)
            yield page

    def link(self, role: str) -> str:
        url: str = self.box.json(*OPEN, "--role", role)["url"]
        return url

    def shell(self, *words: str) -> str:
        return self.box.cfctl("adb", "phone", "shell", *words).stdout

    def feels(self, wanted: set[tuple[int, int, int]], do: Callable[[], object]) -> None:
        """Do something, and wait until the guest's input devices have told of it."""
        self.shell(f"(killall cat; rm -f /tmp/event*; {LISTEN}) >/dev/null 2>&1")
        do()
        wait(lambda: wanted <= events(self.shell(READ)), str(wanted))


def documented(page: str, heading: str) -> list[list[str]]:
    """Return the words after ``cfctl`` of a page's first commands below a heading, a list for each line."""
    block = (REPO / page).read_text().partition(heading)[2].partition("```sh\n")[2].partition("```")[0]
    return [line.partition("#")[0].partition("cfctl ")[2].split() for line in block.splitlines()]


#: What people are told to type is what is typed here.
SERVE, LAUNCH, OPEN = documented("docs/screens.md", "# Screens in a browser")


@contextmanager
def serving(base: Path, *names: str) -> Iterator[Lab]:
    """Run a host for the block, on which a relay shows devices, and a browser in its network."""
    with ExitStack() as stack:
        box = stack.enter_context(sandboxes.sandbox(base / "box"))
        box.cfctl("host", "setup", "--instances", str(len(names)))
        relay = box.start(*box.cfctl_argv(*SERVE, "--json"), stdout=subprocess.PIPE)
        assert relay.stdout is not None
        stack.callback(relay.stdout.close)
        stack.callback(relay.wait)
        stack.callback(lambda: box.run("pkill", "-TERM", "-f", "cfctl relay serve", check=False))
        assert any(json.loads(line)["event"] == "ready" for line in relay.stdout)
        for name in names:
            box.cfctl(*LAUNCH[:-1], name)
            stack.callback(box.cfctl, "rm", name, "--force", check=False)
        # Playwright is outside of the sandbox.
        chromium = base / "chromium"
        chromium.write_text(f'#!/bin/sh\nexec nsenter -t {box.pid} -n /usr/bin/chromium "$@"\n')
        chromium.chmod(0o755)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        stack.callback(browser.close)
        yield Lab(box, browser)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, host_package: Path) -> Iterator[Lab]:
    """Give such a host.

    :param host_package: not used, but made: what is launched without a name.
    """
    del host_package
    with serving(tmp_path_factory.mktemp("page"), LAUNCH[-1]) as lab:
        yield lab


def test_the_readme_says_the_same() -> None:
    assert documented("README.md", "## Screens in the browser") == [SERVE, LAUNCH, OPEN]
    assert (SERVE[:2], LAUNCH[0], OPEN[0]) == (["relay", "serve"], "launch", "open")


def test_the_relay_s_port_is_none_of_the_device_s(lab: Lab) -> None:
    (instance,) = lab.box.json("status", "phone")["instances"]
    assert instance["ports"] == {"adb": 6520}


def test_the_picture_lives_and_text_is_typed_in_the_guest(lab: Lab) -> None:
    with lab.live() as page:
        assert "code=" not in page.url
        pictures: set[str] = set()

        def moved() -> bool:
            pictures.add(page.evaluate(_PIXELS))
            return len(pictures) > 2

        wait(moved, "three pictures that differ")
        page.get_by_role("button", name="Paste").click()
        page.get_by_label("What is typed").fill("echo 'It is $((6*7)).' >/tmp/pasted\n")
        page.get_by_role("button", name="Type it").click()
        expect(page.locator("#status")).to_have_text("Typed.", timeout=PATIENCE_MS)
        wait(lambda: "It is $((6*7))." in lab.shell("cat /tmp/pasted 2>/dev/null; true"), "the guest's file")
        page.locator("#screen").focus()
        page.keyboard.type("mkdir /tmp/typed\n", delay=20)
        wait(lambda: "yes" in lab.shell("[ -d /tmp/typed ] && echo yes; true"), "the guest's directory")


def test_touch_wheel_and_buttons_are_felt_in_the_guest(lab: Lab) -> None:
    with lab.live() as page:
        box = page.locator("#screen").bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        lab.feels({(1, BTN_LEFT, 1), (1, BTN_LEFT, 0)}, lambda: page.mouse.click(*middle))
        lab.feels({(2, REL_WHEEL, 0xFFFF)}, lambda: page.mouse.wheel(0, 120))
        for name, key in (("Power", KEY_POWER), ("Volume up", KEY_VOLUMEUP)):
            lab.feels({(1, key, 1), (1, key, 0)}, page.get_by_role("button", name=name).click)


def test_the_page_s_own_buttons(lab: Lab) -> None:
    with lab.live() as page:
        page.get_by_role("button", name="Statistics").click()
        for word in ("frames/s", "kbit/s", "round trip", "latency"):
            expect(page.locator("#stats")).to_contain_text(word, timeout=PATIENCE_MS)
        page.get_by_role("button", name="Copy adb").click()
        expect(page.locator("#status")).to_contain_text("cfctl adb phone", timeout=PATIENCE_MS)
        assert page.evaluate("navigator.clipboard.readText()") == "cfctl adb phone"
        page.get_by_role("button", name="Rotate").click()
        turned = "document.getElementById('video').style.transform === 'rotate(90deg)'"
        wait(lambda: page.evaluate(turned), "the picture to turn")
        page.get_by_role("button", name="Full screen").click()
        wait(lambda: page.evaluate("document.fullscreenElement?.id === 'stage'"), "the full screen")


def test_a_command_typed_at_the_console_shows_what_it_says(lab: Lab) -> None:
    with lab.live() as page:
        page.get_by_role("tab", name="Console").click()
        expect(page.locator("#term-note")).to_contain_text("Press Enter", timeout=PATIENCE_MS)
        page.keyboard.type("echo sum $((40+2))\n")
        expect(page.locator("#term-lines")).to_contain_text("sum 42", timeout=PATIENCE_MS)
        page.keyboard.type("printf '\\033[31mred\\033[0m'; sleep 600\n")
        expect(page.locator("#term-lines .f1")).to_have_text("red", timeout=PATIENCE_MS)
        # What sleeps is interrupted; what a person pastes is typed.
        page.get_by_role("button", name="Ctrl-C").click()
        page.evaluate("navigator.clipboard.writeText('echo past$((1))ed')")
        page.keyboard.press("Control+v")
        page.keyboard.press("Enter")
        expect(page.locator("#term-lines")).to_contain_text("past1ed", timeout=PATIENCE_MS)

        # One at a time: what the guest writes goes to one reader only.
        with lab.live() as other:
            other.get_by_role("tab", name="Console").click()
            expect(other.locator("#term-note")).to_contain_text("somebody else has", timeout=PATIENCE_MS)
            page.get_by_role("link", name="All devices").click()
            again = other.get_by_role("button", name="Connect again")

            def got() -> bool:
                if again.is_visible():
                    again.click()
                return "Press Enter" in (other.locator("#term-note").text_content() or "")

            wait(got, "the console to be free")


#: What is seen of the console, row by row: its lines that lie within it, be it in part.
_SEEN = """() => { const box = document.getElementById("term-lines").getBoundingClientRect();
  return [...document.querySelectorAll("#term-lines > div")].filter((one) => {
    const place = one.getBoundingClientRect();
    return place.bottom > box.top + 1 && place.top < box.bottom - 1;
  }).map((one) => one.innerText.trimEnd()); }"""


def test_an_editor_and_a_pager_in_the_console(lab: Lab) -> None:
    with lab.live() as page:
        page.get_by_role("tab", name="Console").click()
        expect(page.locator("#term-note")).to_contain_text("Press Enter", timeout=PATIENCE_MS)
        lines = page.locator("#term-lines")

        def seen() -> list[str]:
            found: list[str] = page.evaluate(_SEEN)
            return found

        page.keyboard.type("seq 1 100 >/tmp/numbers; echo bef$((1))ore; vi /tmp/numbers\n")
        # It asks the terminal for its size, and fills it: its status is in the last row, and nothing else is above.
        wait(lambda: "/tmp/numbers 1/100" in seen()[-1], "the editor's last row")
        assert seen()[:3] == ["1", "2", "3"]
        rows = len(seen())
        for key in ("ArrowDown", "ArrowDown", "d", "d", "Shift+O"):
            page.keyboard.press(key)
        page.keyboard.type("a line")
        page.keyboard.press("Escape")
        wait(lambda: seen()[:5] == ["1", "2", "a line", "4", "5"], "the inserted line")
        wait(
            lambda: seen()[-1].startswith("- "),
            "the end of the insertion: keys that follow too soon are one with Escape",
        )
        assert len(seen()) == rows
        page.keyboard.type(":wq\n")
        # What was there before is there again, and nothing of the editor's.
        expect(lines).to_contain_text("bef1ore", timeout=PATIENCE_MS)
        assert "a line" not in (lines.text_content() or "")
        page.keyboard.type("less /tmp/numbers\n")
        wait(lambda: seen()[-2:] and "a line" in seen(), "the pager")
        page.keyboard.press("Shift+G")
        wait(lambda: "100" in seen(), "its end")
        page.keyboard.type("qclear; echo the $((40+2))\n")
        # An empty screen: what was scrolled away is above it, and none of it is seen.
        wait(lambda: seen()[0] == "the 42", "an empty screen")


def test_who_only_looks_has_no_console(lab: Lab) -> None:
    with lab.live("viewer") as page:
        expect(page.locator("#hands")).to_contain_text("View only", timeout=PATIENCE_MS)
        assert page.get_by_role("tab").count() == 0
        expect(page.get_by_role("button", name="Power")).to_be_disabled(timeout=PATIENCE_MS)
        cookies = page.context.cookies()
    secrets = {
        role: lab.box.json("relay", "token", "create", "--role", role)["secret"] for role in ("viewer", "operator")
    }
    origin = {"own": URL, "other": "http://198.51.100.1"}
    cookie = {"Cookie": f"{cookies[0]['name']}={cookies[0]['value']}"}
    bearer = {role: {"Authorization": f"Bearer {secret}"} for role, secret in secrets.items()}
    asked = {
        "nobody": ({"Origin": origin["own"]}, 401),
        "a viewer's session": ({**cookie, "Origin": origin["own"]}, 403),
        "a viewer's token": (bearer["viewer"], 403),
        "another site's page": ({**bearer["operator"], "Origin": origin["other"]}, 403),
        "an operator": (bearer["operator"], 101),
    }
    for who, (headers, wanted) in asked.items():
        done = lab.box.run(PYTHON, "-c", _UPGRADE, "/api/devices/phone/console", json.dumps(headers))
        assert int(done.stdout) == wanted, who


#: Asks for a WebSocket as no browser does; prints the status of the answer.
_UPGRADE = """
import http.client, json, sys
to = http.client.HTTPConnection("127.0.0.1", 8443, timeout=60)
upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
to.request("GET", sys.argv[1], headers={**upgrade, "Sec-WebSocket-Key": "A" * 22 + "==", **json.loads(sys.argv[2])})
print(to.getresponse().status)
"""


def test_a_token_that_is_revoked_ends_its_console(lab: Lab) -> None:
    made = lab.box.json("relay", "token", "create", "--role", "operator")
    # The list asks on, and is told so: a browser logs that by itself.
    with lab.page(URL, expected="401") as page:
        page.get_by_label("Token").fill(made["secret"])
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_role("heading", name="Devices")).to_be_visible(timeout=PATIENCE_MS)
        said = page.evaluate_handle(
            """() => { const said = []; const socket = new WebSocket("/api/devices/phone/console");
            socket.onmessage = ({ data }) => typeof data === "string" && said.push(data); return said; }"""
        )
        wait(lambda: any("opened" in one for one in said.json_value()), "the console")
        lab.box.cfctl("relay", "token", "revoke", made["id"])
        wait(lambda: any("counts no more" in one for one in said.json_value()), "its end")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=PATIENCE_MS)


def test_open_opens_a_browser_for_whoever_sits_there(lab: Lab) -> None:
    """An ordinary user at a terminal of a desktop; xdg-open is a stand-in that keeps what it was called with."""
    opener = '#!/bin/sh\necho "$@" >/home/tester/told\n'
    lab.box.run("sh", "-c", "mkdir -p /tmp/bin && cat >/tmp/bin/xdg-open && chmod +x /tmp/bin/xdg-open", stdin=opener)
    env = {"PATH": "/tmp/bin:/usr/bin:/bin", "DISPLAY": ":0"}

    def typed(*options: str, tty: bool = True) -> str:
        argv = lab.box.cfctl_argv("open", *options)
        # script(1) gives it a terminal.
        whole = ["script", "-qec", shlex.join(argv), "/dev/null"] if tty else argv
        return lab.box.run(*whole, user=USER, env=env).stdout.strip()

    def told() -> str:
        return lab.box.run("cat", "/home/tester/told", check=False).stdout.strip()

    for quiet in (typed("--print"), typed("--no-browser"), typed(tty=False)):
        assert quiet.startswith(f"{URL}/enter#code=")
    assert told() == ""
    link = typed()
    assert link.startswith(f"{URL}/enter#code=")
    file = wait(told, "xdg-open")
    assert "code" not in file
    page = lab.box.run("cat", file).stdout
    assert html.escape(link) in page
    assert lab.box.run("stat", "-c", "%a %U", file).stdout.split() == ["600", USER]


def test_a_device_that_is_stopped_is_said_to_be_and_comes_back_by_itself(lab: Lab) -> None:
    with lab.live() as page:
        lab.box.cfctl("stop", "phone")
        expect(page.locator("#veil-title")).to_have_text("phone is stopped", timeout=PATIENCE_MS)
        expect(page.locator("#veil-command")).to_have_text("cfctl restart phone", timeout=PATIENCE_MS)
        expect(page.get_by_role("button", name="Power")).to_be_disabled(timeout=PATIENCE_MS)
        lab.box.cfctl("restart", "phone", timeout=180)
        expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE_MS)
        before = page.evaluate(_PIXELS)
        wait(lambda: page.evaluate(_PIXELS) != before, "a picture that moves")
