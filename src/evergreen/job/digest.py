"""One sha256 for a whole folder: by it a ticket says exactly which data and which model it means."""

from __future__ import annotations

import hashlib
from pathlib import Path

from evergreen.core.errors import Corrupt


def digest(folder: Path) -> str:
    """Hash every file below a folder, by name and content."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{inner}\n".encode())
    return total.hexdigest()


def verify(folder: Path, expected: str, what: str) -> None:
    """Raise `Corrupt` if a folder is not the one that was meant; nothing expected, nothing checked."""
    if expected and digest(folder) != expected:
        raise Corrupt(f"{what} in the store is not the one that this training was given (its sha256 differs)")
