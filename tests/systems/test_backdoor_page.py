"""Row B3, the page for trainings as people have it: in Chromium, on a desk and on a phone, by mouse and by keyboard."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; `make browser` fetches it")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SIZES = {"desk": (1440, 900), "phone": (390, 844)}
PATH = "/admin/training"

System = Any


@contextmanager
def browsing(size: str) -> Iterator[tuple[Any, list[str]]]:
    """Open a page of a size; the list fills with what the console complains of."""
    from playwright.sync_api import sync_playwright

    width, height = SIZES[size]
    with sync_playwright() as play, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = play.chromium.launch_persistent_context(
            folder, executable_path=CHROMIUM, args=FLAGS, viewport={"width": width, "height": height}
        )
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        yield page, complaints
        browser.close()


@pytest.mark.parametrize("size", SIZES)
def test_B3_the_page_fits_and_is_quiet(backdoor: System, size: str) -> None:
    with browsing(size) as (page, complaints):
        assert page.goto(backdoor.url + PATH).status == 200
        page.wait_for_timeout(300)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"it scrolls sideways by {wide} px"
        small = page.evaluate(
            "[...document.querySelectorAll('main button, main a.button, main input:not([type=hidden])')]"
            ".map(e => [e.outerHTML.slice(0, 80), (e.closest('label') ?? e).getBoundingClientRect().height])"
            ".filter(([, h]) => h > 0 && h < 40)"
        )
        assert small == []
        assert complaints == []


def test_B3_by_keyboard_a_training_is_asked_for_and_followed_without_a_reload(backdoor: System) -> None:
    before = len(backdoor.get("/api/ai/training/status")["allJobs"])
    with browsing("phone") as (page, complaints):
        page.goto(backdoor.url + PATH)
        page.get_by_label("Reason").focus()
        page.keyboard.type("by keyboard")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=A training was asked for")
        page.wait_for_selector("tr:has-text('By keyboard'):has-text('completed')", timeout=120_000)
        assert complaints == []
    jobs = backdoor.get("/api/ai/training/status")["allJobs"]
    assert len(jobs) == before + 1
    assert (jobs[0]["reason"], jobs[0]["force"]) == ("by keyboard", True)


def test_B3_a_file_is_downloaded_from_the_page(backdoor: System) -> None:
    with browsing("desk") as (page, complaints):
        page.goto(backdoor.url + PATH)
        with page.expect_download() as waiting:
            page.get_by_role("link", name=f"Download {backdoor.newest()}").click()
        assert waiting.value.suggested_filename.endswith(".mlmodel")
        assert complaints == []
