"""Where the database is: the option, the environment, and what relative paths are relative to."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from evergreen.core.errors import ConfigError
from evergreen.core.recipe import PluginOptions

_HINT = "Write sqlite:///path/to/file.db or postgresql://user@host/database."


class Options(PluginOptions):
    """Settings of the SQL ledger."""

    url: str | None = None
    """`sqlite:///path` (relative to the project), `postgresql://…`, or `env:NAME` for the value of a variable.
    Not set: `ledger.db` in the state folder. The variable EVERGREEN_LEDGER overrides it."""


def locate(options: Options, home: Path, state: Path) -> URL:
    """Return the database's address; make the folder of a SQLite file. Raises `ConfigError` for what is none."""
    text = _from_environment(os.environ.get("EVERGREEN_LEDGER") or options.url)
    if not text:
        return _file(state / "ledger.db")
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError) as e:
        raise ConfigError("the ledger's url cannot be understood", field="url", hint=_HINT) from e
    if backend == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigError("the ledger's url names no file", field="url", hint='Or use the ledger "memory".')
        return _file(home / url.database)
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise ConfigError(f"the ledger does not know {backend} databases", field="url", hint=_HINT)


def _from_environment(text: str | None) -> str | None:
    if not text or not text.startswith("env:"):
        return text
    name = text.removeprefix("env:")
    if not os.environ.get(name):
        raise ConfigError(
            f"the ledger's url is to come from {name}, which is not set", field="url", hint=f"Set {name}."
        )
    return os.environ[name]


def _file(path: Path) -> URL:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"the ledger's folder {path.parent} cannot be made: {e.strerror}", field="url") from e
    return URL.create("sqlite+pysqlite", database=str(path))
