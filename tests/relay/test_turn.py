"""A viewer who may use nothing but TURN, and the relay's own coturn."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.relay.relays import PATIENCE_S, Relay, running, wait
from tests.relay.screens import streaming


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with running(web="127.0.0.1:0", turn=f"127.0.0.1:{free_port()}", ice={"relay_only": True}) as relay:
        yield relay


def test_the_picture_comes_through_turn_alone(relay: Relay) -> None:
    with streaming(relay), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.goto(relay.listeners["web"]["address"])
        page.get_by_label("Token").fill(relay.token("viewer"))
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_role("heading", name="Devices")).to_be_visible(timeout=1000 * PATIENCE_S)
        page.evaluate("location.hash = '#/pad-1'")
        page.wait_for_selector("#stage[data-connected=true]")
        page.get_by_role("button", name="Statistics").click()
        expect(page.locator("#stats")).to_contain_text("(TURN)", timeout=1000 * PATIENCE_S)
        wait(lambda: page.evaluate("document.getElementById('video').videoWidth") == 320, "the picture")
        browser.close()


def test_its_secret_is_nobody_elses(relay: Relay) -> None:
    file = relay.root / "run/relay/turn.conf"
    secret = next(line for line in file.read_text().splitlines() if line.startswith("static-auth-secret="))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert not any(secret.partition("=")[2] in child for child in relay.children())
    assert any("turnserver" in child for child in relay.children())
