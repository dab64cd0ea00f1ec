"""Bringing a database to the schema of this code; alembic is imported only when there is something to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect

from evergreen.backends.ledger.sql.tables import metadata, revision
from evergreen.core.errors import ConfigError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

#: The newest migration in migrations/versions; a test holds it to that.
HEAD = "0005"
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


def prepare(conn: Connection) -> None:
    """Bring a database to the schema of this code, inside the caller's transaction, unless somebody else just did."""
    if is_current(conn):
        return
    if inspect(conn).get_table_names():
        upgrade(conn)
    else:
        _lay_down(conn)


def upgrade(conn: Connection) -> None:
    """Run the migrations that are missing."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    config = Config()
    scripts = directory()

    def steps(found: Any, _: Any) -> Any:
        return scripts._upgrade_revs("head", found)

    with EnvironmentContext(config, scripts, fn=steps) as environment:
        environment.configure(connection=conn, version_table=_TABLE)
        environment.run_migrations()


def _lay_down(conn: Connection) -> None:
    """Make a new database at once: the tables are what all migrations come to, which a test holds them to."""
    metadata.create_all(conn)
    conn.execute(revision.insert().values(n=0))
    conn.exec_driver_sql(f"CREATE TABLE {_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    conn.exec_driver_sql(f"INSERT INTO {_TABLE} (version_num) VALUES ('{HEAD}')")  # noqa: S608 - our own constants


def directory() -> ScriptDirectory:
    """Return the migrations as alembic sees them."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(__file__).with_name("migrations")))
