"""Bringing a database to the schema of this code; alembic is imported only when there is something to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect

from evergreen.core.errors import ConfigError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

#: The newest migration in migrations/versions; a test holds it to that.
HEAD = "0001"
_TABLE = "alembic_version"


def is_current(conn: Connection) -> bool:
    """Say whether the schema is this code's. Raises `ConfigError` if it is a newer one's."""
    if not inspect(conn).has_table(_TABLE):
        return False
    found = conn.exec_driver_sql(f"SELECT version_num FROM {_TABLE}").scalar()  # noqa: S608 - our own constant
    if found is not None and str(found) > HEAD:
        raise ConfigError(
            f"the ledger was written by a newer Evergreen: its schema is {found}, this code knows {HEAD}",
            field="url",
            hint="Upgrade this installation (pip install -U evergreen-ml), or point it to another ledger.",
        )
    return found == HEAD


def upgrade(conn: Connection) -> None:
    """Run what is missing, inside the caller's transaction, unless somebody else just did."""
    if is_current(conn):
        return
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    config = Config()
    scripts = directory()

    def steps(found: Any, _: Any) -> Any:
        return scripts._upgrade_revs("head", found)

    with EnvironmentContext(config, scripts, fn=steps) as environment:
        environment.configure(connection=conn, version_table=_TABLE)
        environment.run_migrations()


def directory() -> ScriptDirectory:
    """Return the migrations as alembic sees them."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(__file__).with_name("migrations")))
