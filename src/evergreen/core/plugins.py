"""Finding recipes and backends by name. Ours are declared in pyproject.toml like everybody's."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from evergreen.core.config import Use, problems
from evergreen.core.errors import ConfigError, MissingExtra, PluginNotFound

GROUPS = ("recipes", "ledgers", "stores", "runners", "sources", "formats", "doors", "subscribers")

#: Which extra of `evergreen-ml` brings what a plugin needs, where it has another name.
EXTRAS = {"sql": "serve", "gdrive": "drive", "onnx": "uploads", "coreml": "uploads", "apprise": "notify"}


def names(group: str) -> list[str]:
    """List what is installed."""
    return sorted(entry_points(group=f"evergreen.{group}").names)


def load(group: str, name: str) -> Any:
    """Return the class called `name`, or the one at `package.module:Class`."""
    if ":" in name:
        module, _, attr = name.partition(":")
        try:
            return getattr(import_module(module), attr)
        except (ImportError, AttributeError) as e:
            raise PluginNotFound(f'{group[:-1]} "{name}" cannot be imported: {e}', field="use") from e
    for ep in entry_points(group=f"evergreen.{group}", name=name):
        try:
            return ep.load()
        except ModuleNotFoundError as e:
            if (e.name or "").partition(".")[0] == "evergreen":
                raise  # a mistake of ours, not a package to install
            raise missing(f'{group[:-1]} "{name}"', e, extra=EXTRAS.get(name, name)) from e
    raise PluginNotFound(
        f'no {group[:-1]} "{name}"; there are: {", ".join(names(group)) or "none"}',
        field="use",
        hint="Correct the name, or install the package that brings it.",
    )


def missing(what: str, e: ModuleNotFoundError, extra: str) -> MissingExtra:
    """Say which package `what` needs and how to get it."""
    return MissingExtra(
        f"{what} needs a package that is not installed: {e.name}", hint=f"pip install 'evergreen-ml[{extra}]'"
    )


def make(group: str, use: Use, **given: Any) -> Any:
    """Build the plugin that `use` names, checking its options with its own `Options`."""
    cls = load(group, use.use)
    try:
        options = cls.Options(**use.options)
    except ValidationError as e:
        field = ".".join(str(p) for p in e.errors()[0]["loc"])
        raise ConfigError(problems(e, f'{group[:-1]} "{use.use}"'), field=field) from e
    return cls(options, **given)
