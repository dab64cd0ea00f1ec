"""A store by somebody else: everything in one SQLite file."""

import re
import shutil
import sqlite3
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from evergreen.core.errors import Conflict, Corrupt, InvalidInput, NotFound
from evergreen.core.recipe import PluginOptions

KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,199})*")
TABLES = """
create table if not exists entry (key text primary key, folder integer not null, data blob);
create table if not exists file (key text, name text, sha256 text, data blob, primary key (key, name));
"""


class Options(PluginOptions):
    """Settings of the store."""

    file: str = "attic.db"
    """Where, below the project's folder."""


class Attic:
    """Keeps the promises of `Store` with transactions."""

    Options = Options

    def __init__(self, options, *, home, state):
        self.path = Path(home) / options.file
        with closing(sqlite3.connect(self.path, timeout=60)) as db:
            db.execute("pragma journal_mode = wal")
            db.executescript(TABLES)

    def put(self, key, folder):
        _checked(key)
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}")
        found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        digests = {name: sha256(data).hexdigest() for name, data in found.items()}
        with self._open() as db:
            if (kind := self._kind(db, key)) is None:
                db.execute("insert into entry (key, folder) values (?, 1)", (key,))
                db.executemany("insert into file values (?, ?, ?, ?)", [(key, n, digests[n], found[n]) for n in found])
            elif not kind or dict(db.execute("select name, sha256 from file where key = ?", (key,))) != digests:
                raise Conflict(f'"{key}" is there already and holds something else')
        return digests

    def get(self, key, folder):
        _checked(key)
        with self._open() as db:
            if not self._kind(db, key):
                raise NotFound(f'there is no folder "{key}"')
            rows = list(db.execute("select name, sha256, data from file where key = ?", (key,)))
        if bad := [name for name, digest, data in rows if sha256(data).hexdigest() != digest]:
            raise Corrupt(f'"{key}": {", ".join(bad)} is not what was stored')
        draft = folder.with_name(f".{folder.name}.{uuid4().hex}")
        draft.mkdir(parents=True)
        for name, _, data in rows:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(data)
        try:
            draft.rename(folder)
        except OSError as e:
            there = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
            shutil.rmtree(draft)
            if there != {name: data for name, _, data in rows}:
                raise Conflict(f"{folder} holds something else") from e

    def put_new(self, key, data):
        with self._open() as db:
            row = (_checked(key), data)
            return db.execute("insert or ignore into entry (key, folder, data) values (?, 0, ?)", row).rowcount == 1

    def read(self, key):
        with self._open() as db:
            row = db.execute("select data from entry where key = ? and not folder", (_checked(key),)).fetchone()
        if row is None:
            raise NotFound(f'there is no object "{key}"')
        return row[0]

    def list(self, prefix=""):
        prefix = prefix.rstrip("/")
        with self._open() as db:
            keys = [key for (key,) in db.execute("select key from entry order by key")]
        return [key for key in keys if not prefix or key == prefix or key.startswith(prefix + "/")]

    def delete(self, key):
        with self._open() as db:
            db.execute("delete from entry where key = ?", (_checked(key),))
            db.execute("delete from file where key = ?", (key,))

    @contextmanager
    def _open(self):
        """One connection, one transaction."""
        with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as db:
            db.execute("begin immediate")
            try:
                yield db
            except BaseException:
                db.execute("rollback")
                raise
            db.execute("commit")

    @staticmethod
    def _kind(db, key):
        """Say what is stored by a key: 1 a folder, 0 an object, None nothing."""
        row = db.execute("select folder from entry where key = ?", (key,)).fetchone()
        return None if row is None else row[0]


def _checked(key):
    if len(key) > 250 or not KEY.fullmatch(key):
        raise InvalidInput(f"{key!r} is not a key")
    return key
