"""The pages as people have them: in Chromium, on a desk and on a phone, by mouse and by keyboard."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from acceptance_kit import Server, command, serving, wait

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; `make browser` fetches it")
#: A browser that talks to nobody but us.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"desk": (1440, 900), "phone": (390, 844)}


@contextmanager
def browsing(size: str, scheme: str = "light") -> Iterator[tuple[Any, list[str]]]:
    """Open a page of a size; the list fills with what the console complains of."""
    from playwright.sync_api import sync_playwright

    width, height = SIZES[size]
    with sync_playwright() as play, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = play.chromium.launch_persistent_context(
            folder,
            executable_path=CHROMIUM,
            args=FLAGS,
            viewport={"width": width, "height": height},
            color_scheme=scheme,
        )
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        yield page, complaints
        browser.close()


@needs_chromium
@pytest.mark.parametrize("size", SIZES)
def test_every_page_fits_and_is_quiet(parima: Path, size: str) -> None:
    with serving(parima) as server, browsing(size) as (page, complaints):
        for path in ("/", "/loops/parima", "/loops/parima/models/1", "/loops/parima/models/2/gate", "/login", "/docs"):
            answer = page.goto(server.url + path)
            assert answer.status == 200
            page.wait_for_timeout(200)
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{path} scrolls sideways by {wide} px"
        assert complaints == []


@needs_chromium
def test_a_training_is_started_and_followed_without_a_reload(parima: Path) -> None:
    with serving(parima) as server, browsing("desk") as (page, complaints):
        page.goto(server.url + "/loops/parima")
        page.get_by_label("even if there is little data").check()
        page.get_by_role("button", name="Train now").click()
        page.wait_for_selector("text=v3", timeout=60_000)
        assert complaints == []
        assert server.get("/api/parima/models")["models"][0]["version"] == 3


@needs_chromium
def test_by_keyboard_a_version_is_promoted_with_a_reason_and_rolled_back(parima: Path) -> None:
    with serving(parima) as server, browsing("phone") as (page, complaints):
        before = champion(server)
        other = 2 if before == 1 else 1
        page.goto(server.url + "/loops/parima")
        page.locator("summary", has_text=f"Promote… v{other}").focus()
        page.keyboard.press("Enter")
        form = page.locator(f"form:has(button:text('Promote v{other}'))")
        form.get_by_role("textbox").focus()
        page.keyboard.type("because I can")
        for box in form.get_by_role("checkbox").all():
            box.focus()
            page.keyboard.press("Space")
        form.get_by_role("button", name=f"Promote v{other}").focus()
        page.keyboard.press("Enter")
        wait(lambda: champion(server) == other, "the other version is champion")
        page.wait_for_selector("text=because I can")

        page.locator("summary", has_text="Roll back").focus()
        page.keyboard.press("Enter")
        back = page.locator("form:has(button:text('Roll back'))")
        back.get_by_role("textbox").fill("back again")
        back.get_by_role("button", name="Roll back").press("Enter")
        wait(lambda: champion(server) == before, "the former champion is back")
        assert complaints == []


@needs_chromium
def test_with_keys_a_person_signs_in_and_sees_what_the_role_allows(parima: Path) -> None:
    made = command(parima, "keys", "create", "viewer", "--role", "app", "--json")
    assert made.code == 0, made.err
    key = next(word.strip('",') for word in made.out.split() if word.strip('",').startswith("egk_"))
    with serving(parima) as server, browsing("desk") as (page, complaints):
        page.goto(server.url + "/loops/parima")
        assert page.url.startswith(server.url + "/login")
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(server.url + "/loops/parima*")
        assert page.get_by_role("button", name="Train now").is_disabled()
        assert complaints == []


def champion(server: Server) -> int:
    """Return the version that answers."""
    found = server.http.get("/api/parima/status").json()["champion"]
    return int(found["version"])
