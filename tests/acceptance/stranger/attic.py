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
create table if not exists object (key text primary key, data blob not null);
create table if not exists folder (key text primary key);
create table if not exists file (key text, name text, sha256 text, data blob, primary key (key, name));
"""


class Options(PluginOptions):
    """Settings of the store."""

    file: str = "attic.db"
    """Where, below the project's folder."""


class Attic:
    """Keeps the promises of `Store` with transactions."""

    Options = Options
    exclusive, staleness_s = True, 0.0

    def __init__(self, options, *, home, state):
        self.path = Path(home) / options.file
        with closing(sqlite3.connect(self.path, timeout=60)) as db:
            db.execute("pragma journal_mode = wal")
            db.executescript(TABLES)

    def put(self, key, folder, moved=None):
        _checked(key)
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}")
        found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        digests = {name: sha256(data).hexdigest() for name, data in found.items()}
        with self._open() as db:
            if not self._has(db, key):
                db.execute("insert into folder values (?)", (key,))
                db.executemany("insert into file values (?, ?, ?, ?)", [(key, n, digests[n], found[n]) for n in found])
            elif dict(db.execute("select name, sha256 from file where key = ?", (key,))) != digests:
                raise Conflict(f'"{key}" is there already and holds something else')
        _tell(moved, found.values())
        return digests

    def get(self, key, folder, moved=None):
        _checked(key)
        with self._open() as db:
            if not self._has(db, key):
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
        _tell(moved, [data for _, _, data in rows])

    def put_new(self, key, data):
        with self._open() as db:
            row = (_checked(key), data)
            return db.execute("insert or ignore into object values (?, ?)", row).rowcount == 1

    def write(self, key, data):
        with self._open() as db:
            db.execute("insert or replace into object values (?, ?)", (_checked(key), data))

    def read(self, key):
        with self._open() as db:
            row = db.execute("select data from object where key = ?", (_checked(key),)).fetchone()
        if row is None:
            raise NotFound(f'there is no object "{key}"')
        return row[0]

    def list(self, prefix=""):
        prefix = prefix.rstrip("/")
        with self._open() as db:
            keys = [key for (key,) in db.execute("select key from object union select key from folder order by key")]
        return [key for key in keys if not prefix or key == prefix or key.startswith(prefix + "/")]

    def delete(self, key):
        with self._open() as db:
            for table in ("object", "folder", "file"):
                db.execute(f"delete from {table} where key = ?", (_checked(key),))

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
    def _has(db, key):
        return db.execute("select 1 from folder where key = ?", (key,)).fetchone() is not None


def _tell(moved, datas):
    if moved is not None:
        size = sum(len(data) for data in datas)
        moved(size, size)


def _checked(key):
    if len(key) > 250 or not KEY.fullmatch(key):
        raise InvalidInput(f"{key!r} is not a key")
    return key
