"""A browser for tests, and what holds for every page: it fits, can be read, and can be walked by keyboard."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

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
SIZES = {"desk": (1280, 900), "phone": (390, 844), "small": (320, 640)}
PATIENCE_MS = 120_000


class Tab:
    """One page of a browser, and what its console complained of."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.complaints.append(str(e)))

    def go(self, path: str, status: int = 200) -> None:
        """Open a path."""
        assert self.page.goto(self.url + path).status == status, path

    def press(self, locator: Any, key: str = "Enter") -> None:
        """Press a key on something, as one who has no mouse."""
        locator.focus()
        self.page.keyboard.press(key)

    def look(self, path: str, *, walk: bool = True, status: int = 200) -> None:
        """Open a path and check what holds for every page."""
        self.go(path, status)
        self.check(path)
        if walk:
            self.walk(path)

    def check(self, path: str) -> None:
        """Check what is shown now by all rules."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path} scrolls sideways by {wide} px"
        for what, script in RULES.items():
            found = self.page.evaluate(f"{VISIBLE}\n{script}")
            assert found == [], f"{path}: {what}: {found[:4]}"

    def walk(self, path: str) -> None:
        """Go from stop to stop by the tab key: all that can be acted on is reached, and seen to be."""
        wanted = set(self.page.evaluate(NAMED))
        self.page.evaluate(WATCHED)
        visited: dict[str, bool] = {}
        for _ in range(3):  # regions that scroll take the focus, too
            for _ in range(len(wanted) + 3):
                self.page.keyboard.press("Tab")
            visited = dict(self.page.evaluate("window.visited"))
            if wanted <= set(visited):
                break
        assert wanted - set(visited) == set(), f"{path}: not reached by keyboard"
        assert [name for name, seen in visited.items() if not seen] == [], f"{path}: the focus cannot be seen"


#: What is on the page to be seen; what is closed is not.
VISIBLE = """
const visible = e => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
const all = q => [...document.querySelectorAll(q)].filter(visible);
const short = e => e.outerHTML.slice(0, 120);
"""
#: What a person can act on.
ACTED_ON = (
    """all("a[href], button, input, select, textarea, summary").filter(e => e.type !== "hidden" && !e.disabled)"""
)
#: Names each of them, so that it is known again.
NAMED = f"{VISIBLE}\n{ACTED_ON}.map((e, i) => e.dataset.named ??= `${{i}} ${{e.outerHTML.slice(0, 90)}}`)"
#: Notes where the focus goes, and whether it can be seen there.
WATCHED = """addEventListener("focusin", ({ target: e }) => {
    const marked = s => s.outlineStyle !== "none" || s.boxShadow !== "none";
    (window.visited ??= []).push([e.dataset.named ?? "", [getComputedStyle(e), getComputedStyle(e, "::after")].some(marked)]);
})"""
#: What must not be found on any page: rule -> script that lists what breaks it. The figures are those of WCAG 2.2, level AA.
RULES = {
    "there is not one first heading": """
        document.querySelectorAll("h1").length === 1 ? [] : [document.querySelectorAll("h1").length]""",
    "a heading skips a level": """
        all("h1, h2, h3, h4, h5, h6").filter((h, i, hs) => i && +h.tagName[1] > +hs[i - 1].tagName[1] + 1).map(short)""",
    "something sticks out": """
        all("main *").filter(e => !e.closest(".hidden, .scroll, svg") && e.getBoundingClientRect().right > innerWidth + 1
            ).map(short)""",
    "a picture says nothing to who cannot see it": """
        [...all("svg").filter(e => e.getAttribute("aria-hidden") !== "true" &&
            !(e.querySelector("title")?.textContent && e.querySelector("desc")?.textContent)),
         ...all("img").filter(e => !e.hasAttribute("alt"))].map(short)""",
    "it has no name": f"""
        {ACTED_ON}.filter(e => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.querySelector("[alt]:not([alt=''])"))
            ).map(short)""",
    "it is too small to be touched": f"""
        {ACTED_ON}.filter(e => getComputedStyle(e).display !== "inline" && !e.closest(".skip")).filter(e => {{
            const box = (e.type === "checkbox" ? e.closest("label") : e).getBoundingClientRect();
            return box.height < 24 || box.width < 24;
        }}).map(short)""",
    "it cannot be read against its ground": """
        (() => {
            const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            const rgba = colour => {
                canvas.clearRect(0, 0, 1, 1);
                canvas.fillStyle = colour;
                canvas.fillRect(0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data];
            };
            const light = ([r, g, b]) => [r, g, b].map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4
                ).reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
            const ground = e => {
                for (; e; e = e.parentElement) {
                    const found = rgba(getComputedStyle(e).backgroundColor);
                    if (found[3] > 250) return found;
                }
                return rgba("Canvas");
            };
            const texts = all("body *").filter(e => !e.closest(".hidden, .skip") &&
                [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && !["TITLE", "DESC"].includes(e.tagName.toUpperCase()));
            return texts.filter(e => {
                const style = getComputedStyle(e);
                const colour = rgba(e instanceof SVGElement ? style.fill : style.color);
                const [a, b] = [light(colour), light(ground(e))].sort((x, y) => y - x);
                const size = parseFloat(style.fontSize);
                const large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
                return (a + 0.05) / (b + 0.05) < (large ? 3 : 4.5);
            }).map(e => `${getComputedStyle(e).color} on ${ground(e)}: ${short(e)}`);
        })()""",
}


@contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS, env={**os.environ, "HOME": folder})
        yield found
        found.close()


@contextmanager
def tab(chromium: Any, url: str, size: str = "desk", scheme: str = "light") -> Iterator[Tab]:
    """Open a window of its own: other cookies, another size."""
    width, height = SIZES[size]
    window = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    try:
        yield Tab(window.new_page(), url)
    finally:
        window.close()
