"""Print the tree of the package with the first docstring line of every module; keep the maps in the pages true.

`python tools/tree.py` prints all modules. `python tools/tree.py --write AGENTS.md` puts the tree of folders between the
marks `<!-- tree -->` and `<!-- /tree -->` of that page (`<!-- tree: modules -->` for all modules); `--check` fails
where a page is out of date.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "evergreen"
MARKS = re.compile(r"(<!-- tree(?P<all>: modules)? -->\n```text\n).*?(```\n<!-- /tree -->)", re.DOTALL)


def caption(path: Path) -> str:
    """Return the first line of a module's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return doc.splitlines()[0] if doc else ""


def tree(folder: Path = PACKAGE, depth: int = 0, *, modules: bool = True, deepest: int = 9) -> Iterator[str]:
    """Yield a line for a package and each thing in it."""
    yield f"{'  ' * depth + folder.name + '/':<24}{caption(folder / '__init__.py')}".rstrip()
    for path in sorted(folder.iterdir(), key=lambda p: (p.is_dir(), p.name)):
        if path.is_dir() and (path / "__init__.py").exists() and depth < deepest:
            yield from tree(path, depth + 1, modules=modules, deepest=deepest)
        elif path.suffix == ".py" and path.name != "__init__.py" and (modules or depth == 0):
            yield f"{'  ' * (depth + 1) + path.name:<24}{caption(path)}".rstrip()


def renewed(text: str) -> str:
    """Return a page with its trees as they are now."""

    def fresh(m: re.Match[str]) -> str:
        listing = tree() if m["all"] else tree(modules=False, deepest=1)
        return m[1] + "".join(f"{line}\n" for line in listing) + m[3]

    return MARKS.sub(fresh, text)


def main() -> int:
    """Print the tree, or renew or check the pages named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="renew the trees in PAGES")
    parser.add_argument("--check", action="store_true", help="fail if a tree in PAGES is out of date")
    parser.add_argument("pages", nargs="*", type=Path)
    args = parser.parse_args()
    if not args.pages:
        print("\n".join(tree()))
        return 0
    stale = 0
    for page in args.pages:
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) == text:
            continue
        if args.write:
            page.write_text(new, encoding="utf-8")
        else:
            print(f"error: the tree in {page} is out of date: python tools/tree.py --write {page}", file=sys.stderr)
            stale = 1
    return stale if args.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
