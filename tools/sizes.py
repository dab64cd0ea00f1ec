"""Fail when a file is longer than a reader's patience: 400 lines of code, 80 of AGENTS.md, or has a name that says nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "tools", "benchmarks")
SUFFIXES = {".py", ".js", ".css", ".html"}
MOST = 400
MOST_AGENTS = 80
#: Names under which anything could be put.
VAGUE = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}


def files() -> Iterator[Path]:
    """List what people write by hand."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                yield path


def lines(path: Path) -> int:
    """Count lines."""
    return len(path.read_text(encoding="utf-8").splitlines())


def complaints() -> list[str]:
    """Say what is too long or has a vague name."""
    said = []
    for path in files():
        name = path.relative_to(ROOT)
        if (n := lines(path)) > MOST:
            said.append(f"{name} has {n} lines, {MOST} are allowed: split it where a reader would pause")
        vague = VAGUE & {path.stem, *name.parts[:-1]}
        if vague and path.suffix == ".py":
            said.append(f'{name}: "{vague.pop()}" says nothing; name it after what it does')
    agents = ROOT / "AGENTS.md"
    if agents.exists() and (n := lines(agents)) > MOST_AGENTS:
        said.append(f"AGENTS.md has {n} lines, {MOST_AGENTS} are allowed")
    return said


def main() -> int:
    """Print the sizes of the folders, and what is wrong."""
    found = list(files())
    for folder in FOLDERS:
        mine = [lines(p) for p in found if p.relative_to(ROOT).parts[0] == folder]
        if mine:
            print(f"{folder:<11}{len(mine):4} files {sum(mine):6} lines, longest {max(mine)}")
    said = complaints()
    for sentence in said:
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    raise SystemExit(main())
