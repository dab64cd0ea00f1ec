"""Evergreen keeps the machine-learning models inside live applications fresh."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

#: onnxruntime would report its use to its makers; what happens here is nobody's business but the owner's.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from evergreen.core.recipe import Datum, Job, PluginOptions, Predictor, Recipe, Row
    from evergreen.engine import ask, promote, rollback, tick
    from evergreen.project import Project, open

__version__ = "0.1.0"

_HOMES = {
    "open": "evergreen.project",
    "Project": "evergreen.project",
    "tick": "evergreen.engine",
    "ask": "evergreen.engine",
    "promote": "evergreen.engine",
    "rollback": "evergreen.engine",
    "Recipe": "evergreen.core.recipe",
    "Predictor": "evergreen.core.recipe",
    "PluginOptions": "evergreen.core.recipe",
    "Job": "evergreen.core.recipe",
    "Row": "evergreen.core.recipe",
    "Datum": "evergreen.core.recipe",
}

__all__ = [
    "Datum",
    "Job",
    "PluginOptions",
    "Predictor",
    "Project",
    "Recipe",
    "Row",
    "__version__",
    "ask",
    "open",
    "promote",
    "rollback",
    "tick",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import evergreen` stays quick."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'evergreen' has no attribute '{name}'")
