"""Importing the package, its recipes and its command line must not import what only training or serving needs."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

HEAVY = {
    "alembic",
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "scipy",
    "skl2onnx",
    "sklearn",
    "sqlalchemy",
    "starlette",
    "torch",
    "uvicorn",
}
PACKAGES = (
    "evergreen.recipes",
    "evergreen.core",
    "evergreen.stages",
    "evergreen.cli",
    "evergreen.backends.runner",
    "evergreen.backends.source",
)
ALONE = (
    "evergreen",
    "evergreen.job",
    "evergreen.client",
    "evergreen.engine",
    "evergreen.project",
    "evergreen.backends.store.local",
)


def light() -> list[str]:
    """Name every module whose import is promised to be cheap."""
    found = list(ALONE)
    for package in PACKAGES:
        found.append(package)
        found += [f"{package}.{m.name}" for m in pkgutil.iter_modules(import_module(package).__path__)]
    return found


def loaded_by(code: str) -> set[str]:
    """Run code in a process of its own and name the top-level modules it has loaded."""
    program = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_nothing_light_imports_anything_heavy() -> None:
    names = light()
    heavy = loaded_by("\n".join(f"import {name}" for name in names)) & HEAVY
    if heavy:  # find the one to blame
        heavy = {
            f"{name} imports {', '.join(sorted(found))}"
            for name in names
            if (found := loaded_by(f"import {name}") & HEAVY)
        }
    assert not heavy


@pytest.mark.parametrize("argv", [["--help"], ["status", "--help"], ["--version"], ["init", "--list"]])
def test_the_command_line_answers_without_anything_heavy(argv: list[str]) -> None:
    code = f"from evergreen.cli import main\nassert main({argv!r}) == 0"
    assert not loaded_by(code) & HEAVY
