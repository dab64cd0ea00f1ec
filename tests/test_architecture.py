"""The plan of the house as tests: who may import whom, how long files may get, that each says what it is."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "src" / "evergreen").rglob("*.py"))


def tool(name: str) -> ModuleType:
    """Load one of the repository's own tools."""
    spec = spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_import_contracts_are_kept() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_too_long_or_vaguely_named() -> None:
    assert tool("sizes").complaints() == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_every_module_says_what_it_is(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc, "no docstring"
    assert doc.splitlines()[0].endswith((".", "`")), "its first line is not a sentence"


def test_agents_page_is_short_and_its_tree_is_true() -> None:
    page = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= 80
    tree = tool("tree")
    assert tree.MARKS.search(page)
    assert tree.renewed(page) == page


def test_nothing_is_unpickled() -> None:
    """What others send us is never unpickled; so nobody imports a module that could."""
    guilty = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            guilty += [
                f"{path}: {n}" for n in names if n.split(".")[0] in {"pickle", "joblib", "shelve", "marshal", "dill"}
            ]
    assert not guilty
