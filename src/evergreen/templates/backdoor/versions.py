"""Versions as phones know them: `1.0.` and the second in which the model was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evergreen.core.errors import NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Model
from evergreen.core.states import ModelState


def names(models: Sequence[Model]) -> Mapping[str, str]:
    """Name models, which come in the order of the ledger: id -> version. A model's name never changes.

    Two models of the same second get two names all the same, the later one that of the next second.
    """
    named, last = {}, 0
    for model in models:
        last = max(int(model.at.timestamp()) if model.at else 0, last + 1)
        named[model.id] = f"1.0.{last}"
    return named


def all_of(loop: Loop) -> Sequence[tuple[str, Model]]:
    """Return every model with its name, the oldest first."""
    models = loop.ledger.find(Model, loop.name)
    named = names(models)
    return [(named[model.id], model) for model in models]


def champion(loop: Loop) -> tuple[str, Model] | None:
    """Return the model that answers, with its name."""
    for name, model in reversed(all_of(loop)):
        if model.state is ModelState.CHAMPION:
            return name, model
    return None


def name_of(loop: Loop, model: Model) -> str:
    """Return the name of one model."""
    return names(loop.ledger.find(Model, loop.name))[model.id]


def find(loop: Loop, name: str) -> Model:
    """Return the model of that name (or of that number: 3) or raise `NotFound`."""
    known = all_of(loop)
    for version, model in known:
        if name in (version, str(model.version)):
            return model
    newest = ", ".join(version for version, _ in known[:-4:-1]) or "none yet"
    raise NotFound(f"there is no model version {name!r}", field="version", hint=f"The newest are: {newest}.")
