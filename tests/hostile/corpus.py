"""A registry of hostile files. Each is made when it is asked for; none is kept.

@case(".onnx", r"why it is refused")
def a_name(folder: Path) -> bytes: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Makes the bytes of a file, or the file itself below the folder that it is given.
Make = Callable[[Path], "bytes | Path"]


@dataclass(frozen=True)
class Case:
    """A file, and a pattern of what must be said when it is refused."""

    name: str
    suffix: str
    says: str
    make: Make

    def file(self, folder: Path) -> Path:
        """Lay the file down."""
        made = self.make(folder)
        if isinstance(made, Path):
            return made
        file = folder / f"model{self.suffix}"
        file.write_bytes(made)
        return file


CORPUS: dict[str, Case] = {}


def case(suffix: str, says: str) -> Callable[[Make], Make]:
    """Enter a hostile file into the registry; `says` is looked for in the reason."""

    def enter(make: Make) -> Make:
        name = f"{make.__name__}{suffix}"
        known = CORPUS.get(name)  # pytest may import a module under two names: the same line is the same case
        assert known is None or known.make.__code__.co_filename == make.__code__.co_filename, name
        CORPUS[name] = Case(name, suffix, says, make)
        return make

    return enter
