"""The pages as people have them: in Chromium, on a desk and on a phone, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from acceptance_kit import Server, command, serving, wait
from browsing import browser, needs_chromium, tab
from scene import LONG, champion, played

pytestmark = needs_chromium

PAGES = (
    "/",
    "/loops/loans",
    "/loops/loans?all",
    "/loops/answers",
    "/loops/commands",
    "/loops/forecasts",
    "/loops/deliveries",
    f"/loops/{LONG}",
    "/loops/loans/models/1",
    "/loops/loans/models/2",
    "/loops/commands/models/1",
    "/loops/loans/models/2/gate",
    "/loops/loans/models/3/gate",
    "/audit",
    "/docs",
    "/login",
)
LOST = ("/loops/nowhere", "/loops/loans/models/99", "/nowhere")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which everything has happened that a page can show."""
    with played(tmp_path_factory.mktemp("pages") / "scene") as server:
        yield server


@pytest.mark.parametrize(
    ("size", "scheme"), [("desk", "light"), ("desk", "dark"), ("phone", "light"), ("small", "dark")]
)
def test_every_page_fits_can_be_read_and_is_quiet(chromium: Any, server: Server, size: str, scheme: str) -> None:
    """By the rules of `browsing`; by keyboard where the layout is a new one."""
    with tab(chromium, server.url, size, scheme) as t:
        for path in PAGES:
            t.look(path, walk=(size, scheme) in (("desk", "light"), ("phone", "light")))
        assert t.complaints == []
        for path in LOST:
            t.look(path, status=404)


@pytest.mark.parametrize("size", ["desk", "phone"])
def test_what_is_closed_can_be_read_once_it_is_open(chromium: Any, server: Server, size: str) -> None:
    """Forms and figures that a page keeps out of the way."""
    with tab(chromium, server.url, size) as t:
        for path in ("/loops/loans", "/loops/answers", "/loops/loans/models/2", "/loops/loans/models/2/gate", "/docs"):
            t.go(path)
            for nth in range(min(t.page.locator("main summary").count(), 8)):
                t.press(t.page.locator("main summary").nth(nth))
                t.check(f"{path}, part {nth + 1}")
        assert t.complaints == []


def test_what_goes_on_is_seen_at_a_glance(chromium: Any, server: Server) -> None:
    with tab(chromium, server.url) as t:
        t.go("/")
        for loop, said in {
            "loans": "Live traffic has drifted.",
            "answers": "An experiment is running.",
            "forecasts": "Training on dataset v1: 40",
            "deliveries": "The last training failed: The column",
            LONG: "No model and no samples yet.",
        }.items():
            card = t.page.locator("article", has=t.page.get_by_role("heading", name=loop))
            assert said in card.inner_text(), loop
        t.press(t.page.get_by_role("link", name="loans"))
        t.page.wait_for_url("**/loops/loans")
        assert "Inputs have changed: income" in t.page.locator("#drift").inner_text()
        assert "of the traffic" in t.page.locator("main").inner_text()


def test_a_training_is_started_followed_and_cancelled_by_keyboard(chromium: Any, server: Server) -> None:
    """Without a reload: the page notices what happens by itself."""
    with tab(chromium, server.url) as t:
        t.go("/loops/forecasts")
        t.page.evaluate("window.mark = 'the same page'")
        server.post("/api/forecasts/cancel", {"why": "by somebody else"})
        t.page.get_by_text("Nothing is being trained.").wait_for()
        assert t.page.evaluate("window.mark") == "the same page"
        t.press(t.page.get_by_label("even if there is little data"), "Space")
        t.press(t.page.get_by_role("button", name="Train now"))
        t.page.get_by_text("A training was asked for. It begins").wait_for()
        t.page.get_by_text("412 of 1,000").wait_for()
        assert "said=" not in t.page.url
        t.press(t.page.get_by_role("button", name="Cancel run"))
        t.page.get_by_text("The training was cancelled.").wait_for()
        assert t.complaints == []
        server.post("/api/forecasts/train", {"force": True, "why": "as it was"})


def test_by_keyboard_a_version_is_promoted_with_a_reason_and_rolled_back(chromium: Any, server: Server) -> None:
    with tab(chromium, server.url, "phone") as t:
        t.go("/loops/notes")
        t.press(t.page.locator("summary", has_text="Promote… v1"))
        form = t.page.locator("form", has=t.page.get_by_role("button", name="Promote v1"))
        form.get_by_role("textbox").focus()
        t.page.keyboard.type("because I can")
        for box in form.get_by_role("checkbox").all():
            t.press(box, "Space")
        t.press(form.get_by_role("button", name="Promote v1"))
        wait(lambda: champion(server, "notes") == 1, "v1 is champion")
        t.page.get_by_text("v1 is champion now.").wait_for()
        assert t.page.get_by_text("because I can").count()

        t.press(t.page.locator("summary", has_text="Roll back"))
        t.page.keyboard.press("Escape")
        assert not t.page.get_by_role("button", name="Roll back").is_visible()
        t.press(t.page.locator("summary", has_text="Roll back"))
        back = t.page.locator("form", has=t.page.get_by_role("button", name="Roll back"))
        back.get_by_role("textbox").fill("back again")
        t.press(back.get_by_role("button", name="Roll back"))
        wait(lambda: champion(server, "notes") == 2, "the former champion is back")
        assert t.complaints == []


def test_by_keyboard_an_experiment_is_begun_and_ended(chromium: Any, server: Server) -> None:
    with tab(chromium, server.url, "phone") as t:
        t.go("/loops/notes")
        t.press(t.page.locator("summary", has_text="Start one"))
        for label, text in {
            "Versions beside the champion": "1",
            "Their shares of the units": "0.3",
            "At most for": "7d",
            "Reason": "is the old one as good?",
        }.items():
            field = t.page.locator("#experiment").get_by_label(label)
            field.focus()
            t.page.keyboard.type(text)
        t.page.keyboard.press("Enter")
        t.page.get_by_text("The experiment has begun.").wait_for()
        assert server.get("/api/notes/experiment")["state"] == "running"
        t.press(t.page.locator("summary", has_text="End it"))
        t.page.locator("#experiment").get_by_label("Reason").fill("seen enough")
        t.page.keyboard.press("Enter")
        t.page.get_by_text("The experiment has ended").wait_for()
        assert t.complaints == []


def test_what_is_refused_is_said_where_it_was_asked(chromium: Any, server: Server) -> None:
    with tab(chromium, server.url, "phone") as t:
        t.go("/loops/notes")
        t.press(t.page.locator("summary", has_text="Start one"))
        for label in ("Versions beside the champion", "Their shares of the units", "Reason"):
            t.page.locator("#experiment").get_by_label(label).fill("many")
        t.page.keyboard.press("Enter")
        assert "are numbers" in t.page.get_by_role("alert").inner_text()
        t.check("/loops/notes, refused")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    """Backdoor AI as its template lays it down, with keys."""
    home = tmp_path_factory.mktemp("door") / "app"
    assert command(home.parent, "init", "--template", "backdoor", home.name).code == 0
    keys = {
        role: command(home, "keys", "create", f"the {role}", "--role", role).out.strip() for role in ("app", "admin")
    }
    with serving(home) as server:
        yield server, keys


def sign_in(t: Any, key: str) -> None:
    t.page.get_by_label("Key").fill(key)
    t.page.keyboard.press("Enter")


@pytest.mark.parametrize("size", ["desk", "phone"])
def test_a_person_signs_in_and_sees_what_the_role_allows(
    chromium: Any, locked: tuple[Server, dict[str, str]], size: str
) -> None:
    server, keys = locked
    with tab(chromium, server.url, size) as t:
        t.go("/loops/intent")
        t.page.wait_for_url("**/login?next=*")
        t.check("/login")
        sign_in(t, keys["app"])
        t.page.wait_for_url(server.url + "/loops/intent")
        assert t.page.get_by_role("button", name="Train now").is_disabled()
        for path in ("/", "/loops/intent"):
            t.look(path)
        assert t.page.get_by_role("link", name="Audit log").count() == 0
        assert t.complaints == []
        for path in ("/audit", "/admin/training"):
            t.look(path, status=403)
        t.press(t.page.get_by_role("link", name="Sign in with another key"))
        sign_in(t, "egk_wrong")
        t.page.get_by_text("not known here").wait_for()
        t.complaints.clear()  # of the browser's own, about the status
        sign_in(t, keys["admin"])
        t.page.wait_for_url(server.url + "/admin/training")
        for path in ("/", "/admin/training", "/docs", "/audit"):
            t.look(path)
        assert "evergreen keys create admin" in t.page.locator("main").inner_text()
        t.go("/")
        t.press(t.page.get_by_role("link", name="Training"))
        t.page.wait_for_url(server.url + "/admin/training")
        assert t.page.get_by_role("heading", level=1).text_content() == "Training"
        t.press(t.page.get_by_role("button", name="Sign out"))
        t.page.wait_for_url(server.url + "/login")
        assert t.complaints == []
