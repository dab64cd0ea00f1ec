"""Templates: everything a value may contain is escaped, a name that is missing is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evergreen.http.pages import charts, words

_HERE = Path(__file__).parent
STATIC = _HERE.parent / "static"
_RANK = ("none", "app", "reviewer", "operator", "admin")


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page, as far as it shows."""

    role: str
    locked: bool  #: keys exist: there is something to sign in to, or out of

    @classmethod
    def of(cls, role: Any, *, locked: bool) -> Visitor:
        """Make one of a role's name, or of an enumeration's member with that name."""
        name = str(getattr(role, "name", role)).lower()
        return cls(name if name in _RANK else "none", locked)

    def at_least(self, role: str) -> bool:
        """Say whether this role may do what `role` may."""
        return _RANK.index(self.role) >= _RANK.index(role)

    @property
    def operates(self) -> bool:
        """May train, promote and roll back."""
        return self.at_least("operator")

    @property
    def reviews(self) -> bool:
        """May see raw rows."""
        return self.at_least("reviewer")


class Renderer:
    """Renders templates by name; a door may bring a folder with `more` of them."""

    def __init__(self, *more: Path) -> None:
        self._env = Environment(
            loader=FileSystemLoader([_HERE / "templates", *more]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.globals |= {"mark": charts.mark, "bar": charts.bar, "static": marks()}
        self._env.filters |= {"count": words.count, "counted": words.counted, "capital": _sentence}

    def __call__(self, template: str, **shown: Any) -> str:
        """Render one page."""
        return self._env.get_template(template).render(**shown)


def _sentence(text: str) -> str:
    return words.minuses(words.capital(text))


@cache
def marks() -> Mapping[str, str]:
    """Return the names of static files with a mark of their content, so that browsers notice a new version."""
    return {p.name: f"/static/{p.name}?{crc32(p.read_bytes()):08x}" for p in STATIC.iterdir() if p.is_file()}
