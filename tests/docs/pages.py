"""The pages people read, cut into fenced blocks, links and words in code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Every page but those that tools/reference.py writes.
PAGES = (ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if p.parent.name != "reference"))

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?P<more>.*)$")
_TITLE = re.compile(r'title="([^"]+)"')
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int  #: of its first line of text
    follows: bool  #: nothing but blank lines stands between it and the block before
    language: str
    title: str  #: the file that it is, if it is one
    text: str

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    """Call a page by its path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    follows = False
    for number, line in lines:
        if (opening := _FENCE.match(line)) is None:
            follows = follows and not line.strip()
            continue
        indent, text = len(opening["indent"]), []
        for _, inner in lines:
            if inner.strip() == "```":
                break
            text.append(inner[indent:])
        else:
            raise ValueError(f"{name(page)}:{number}: the block has no end")
        title = _TITLE.search(opening["more"])
        yield Block(page, number + 1, follows, opening["language"], title[1] if title else "", "\n".join(text) + "\n")
        follows = True


def prose(page: Path) -> str:
    """Return a page without its fenced blocks and comments."""
    kept, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return re.sub(r"<!--.*?-->", "", "\n".join(kept), flags=re.DOTALL)


def links(page: Path) -> Iterator[str]:
    """Yield where the links and pictures of a page lead."""
    for found in _LINK.finditer(prose(page)):
        yield found[1] or found[2]


def words(page: Path) -> Iterator[str]:
    """Yield what stands in `code` in the text of a page."""
    yield from _CODE.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors that the headings of a page make."""
    plain = (re.sub(r"[`*]", "", heading).lower() for heading in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}
