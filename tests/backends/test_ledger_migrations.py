"""The schema: migrations lead to what the code thinks the tables are, from any older one, and never back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text

from evergreen.backends.ledger.sql import Options, SqlLedger, migrate
from evergreen.backends.ledger.sql.tables import metadata
from evergreen.core.errors import ConfigError
from evergreen.testing.ledger.given import WHO


def opened(folder: Path) -> SqlLedger:
    return SqlLedger(Options(), home=folder, state=folder, now=lambda: datetime.now(UTC))


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_LEDGER", raising=False)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/ledger.db")
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database of either kind, migrated in a transaction that is given up at the end."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite")
        return
    url = str(request.getfixturevalue("postgresql")).replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url)
    yield engine
    engine.dispose()


def shape(engine: Engine, *, by_code: bool) -> object:
    """Return what every table has, made by the migrations or by the code's own tables."""
    with engine.connect() as conn:
        if by_code:
            metadata.create_all(conn)
        else:
            migrate.upgrade(conn)
            context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
            assert compare_metadata(context, metadata) == []
        seen = inspect(conn)
        tables = {
            name: (
                [(c["name"], str(c["type"]), c["nullable"]) for c in seen.get_columns(name)],
                seen.get_pk_constraint(name)["constrained_columns"],
                sorted(
                    (i["name"] or "", i["unique"], i["column_names"], sorted(map(str, i["dialect_options"].values())))
                    for i in seen.get_indexes(name)
                ),
                sorted((u["name"] or "", u["column_names"]) for u in seen.get_unique_constraints(name)),
            )
            for name in metadata.tables
        }
        conn.rollback()
        if by_code or conn.dialect.name == "sqlite":
            metadata.drop_all(conn)
            conn.commit()
        return tables


def test_the_migrations_lead_to_the_tables_of_the_code(engine: Engine) -> None:
    assert shape(engine, by_code=False) == shape(engine, by_code=True)


def test_the_newest_migration_is_the_head() -> None:
    assert migrate.directory().get_heads() == [migrate.HEAD]
    assert max(s.revision for s in migrate.directory().walk_revisions()) == migrate.HEAD


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as ledger:
        told = ledger.note("l", "x", **WHO)
    with closing(opened(tmp_path)) as ledger:
        assert ledger.get(type(told), told.id) == told


def test_a_new_database_has_what_the_migrations_give(tmp_path: Path, sqlite: Engine) -> None:
    opened(tmp_path).close()
    other = create_engine(f"sqlite:///{tmp_path}/migrated.db")
    with other.begin() as conn:
        migrate.upgrade(conn)
    dumps = []
    for engine in (sqlite, other):
        with engine.connect() as conn:
            rows = {t.name: sorted(map(tuple, conn.execute(t.select()))) for t in metadata.sorted_tables}
            rows["alembic_version"] = sorted(map(tuple, conn.execute(text("SELECT * FROM alembic_version"))))
            dumps.append(rows)
        engine.dispose()
    assert dumps[0] == dumps[1]


def test_a_current_schema_is_opened_without_alembic(tmp_path: Path) -> None:
    opened(tmp_path).close()
    code = f"""
import sys; from pathlib import Path; from datetime import UTC, datetime
from evergreen.backends.ledger.sql import Options, SqlLedger
here = Path({str(tmp_path)!r})
SqlLedger(Options(), home=here, state=here, now=lambda: datetime.now(UTC)).counts("l")
sys.exit("alembic" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_newer_schema_is_refused(tmp_path: Path, sqlite: Engine) -> None:
    opened(tmp_path).close()
    with sqlite.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="newer Evergreen") as e:
        opened(tmp_path)
    assert e.value.hint is not None
    assert "pip install" in e.value.hint


def test_a_migration_that_was_cut_short_left_nothing(
    tmp_path: Path, sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = migrate.prepare

    def cut_short(conn: object) -> None:
        prepare(conn)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(migrate, "prepare", cut_short)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path)
    assert inspect(sqlite).get_table_names() == []
    monkeypatch.undo()
    monkeypatch.delenv("EVERGREEN_LEDGER", raising=False)
    opened(tmp_path).close()
