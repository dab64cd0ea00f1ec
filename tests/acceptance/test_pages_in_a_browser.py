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


#: What a person can act on; what is closed or switched off is not there.
ACTED_ON = """[...document.querySelectorAll("a[href], button, input, select, textarea, summary")].filter(
    e => e.type !== "hidden" && !e.disabled && e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length
)"""
#: Names each of them, so that it is known again.
NAMED = f"{ACTED_ON}.map((e, i) => e.dataset.named ??= `${{i}} ${{e.outerHTML.slice(0, 90)}}`)"
#: Notes where the focus goes, and whether it can be seen there.
WATCHED = """addEventListener("focusin", ({ target: e }) => {
    const marked = s => s.outlineStyle !== "none" || s.boxShadow !== "none";
    (window.visited ??= []).push([e.dataset.named ?? "", [getComputedStyle(e), getComputedStyle(e, "::after")].some(marked)]);
})"""
PARIMA = (
    "/",
    "/loops/parima",
    "/loops/parima?all",
    "/loops/parima/models/1",
    "/loops/parima/models/2",
    "/docs",
    "/audit",
)
BACKDOOR = ("/", "/loops/intent", "/admin/training", "/docs", "/audit")


def look(page: Any, path: str, *, walk: bool = True) -> None:
    """Check what holds for every page: it fits, has one heading, and all of it can be reached and seen by keyboard."""
    page.wait_for_timeout(200)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{path} scrolls sideways by {wide} px"
    assert path == "/docs" or page.locator("h1").count() == 1, path
    if not walk:
        return
    wanted = set(page.evaluate(NAMED))
    page.evaluate(WATCHED)
    for _ in range(3):  # regions that scroll take the focus, too
        for _ in range(len(wanted) + 3):
            page.keyboard.press("Tab")
        visited = dict(page.evaluate("window.visited"))
        if wanted <= set(visited):
            break
    assert wanted - set(visited) == set(), f"{path}: not reached by keyboard"
    assert [name for name, seen in visited.items() if not seen] == [], f"{path}: the focus cannot be seen"


@needs_chromium
@pytest.mark.parametrize(("size", "scheme"), [("desk", "light"), ("desk", "dark"), ("phone", "light")])
def test_every_page_fits_is_quiet_and_can_be_walked_by_keyboard(parima: Path, size: str, scheme: str) -> None:
    with serving(parima) as server, browsing(size, scheme) as (page, complaints):
        server.http.post("/api/parima/promote", json={"version": 99, "why": "for the log"})
        for path in (*PARIMA, "/login"):
            assert page.goto(server.url + path).status == 200
            look(page, path, walk=scheme == "light")
        assert complaints == []
        for path, status in (("/loops/nowhere", 404), ("/loops/parima/models/99", 404)):
            assert page.goto(server.url + path).status == status
            look(page, path, walk=scheme == "light")


@needs_chromium
@pytest.mark.parametrize("size", SIZES)
def test_the_pages_of_a_door_are_found_from_the_overview(tmp_path: Path, size: str) -> None:
    assert command(tmp_path, "init", "--template", "backdoor", "app").code == 0
    with serving(tmp_path / "app") as server, browsing(size) as (page, complaints):
        for path in BACKDOOR:
            assert page.goto(server.url + path).status == 200
            look(page, path)
        page.goto(server.url)
        page.get_by_role("link", name="Training").click()
        page.wait_for_url(server.url + "/admin/training")
        assert page.get_by_role("heading", level=1).text_content() == "Training"
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
        for path in ("/", "/loops/parima", "/loops/parima/models/1"):
            page.goto(server.url + path)
            look(page, path)
        assert page.get_by_role("link", name="Audit log").count() == 0
        assert complaints == []
        refused = page.goto(server.url + "/audit")
        assert refused.status == 403
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(server.url + "/login")


@needs_chromium
def test_an_administrator_reads_who_did_what(parima: Path) -> None:
    key = command(parima, "keys", "create", "ann", "--role", "admin").out.strip()
    with serving(parima) as server, browsing("phone") as (page, complaints):
        page.goto(server.url + "/audit")
        page.get_by_label("Key").fill("egk_wrong")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("text=not known here")
        complaints.clear()  # of the browser's own, about the status
        page.get_by_label("Key").fill(key)
        page.keyboard.press("Enter")
        page.wait_for_url(server.url + "/audit*")
        page.goto(server.url)
        page.get_by_role("link", name="Audit log").click()
        page.wait_for_selector("text=POST /login")
        assert "evergreen keys create admin" in page.locator("main").inner_text()
        look(page, "/audit")
        assert complaints == []


def champion(server: Server) -> int:
    """Return the version that answers."""
    found = server.http.get("/api/parima/status").json()["champion"]
    return int(found["version"])
