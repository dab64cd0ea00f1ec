"""LocalStore keeps the promises of a store, and its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from evergreen.backends.store.local import LocalOptions, LocalStore
from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, Conflict, Corrupt, InvalidInput, NotFound
from evergreen.core.plugins import make
from evergreen.testing.store import StoreContract, files, write


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.delenv("EVERGREEN_STORE", raising=False)
    return made(tmp_path)


def made(folder: Path, **options: str) -> LocalStore:
    store: LocalStore = make("stores", Use(use="local", **options), home=folder / "home", state=folder / "state")
    return store


class TestLocalStore(StoreContract):
    pass


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_STORE", raising=False)
    assert made(tmp_path).root == tmp_path / "state" / "store"
    assert made(tmp_path, path="blobs").root == tmp_path / "home" / "blobs"
    assert made(tmp_path, path=str(tmp_path / "x")).root == tmp_path / "x"
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / "env"))
    assert made(tmp_path, path="blobs").root == tmp_path / "env"
    monkeypatch.setenv("EVERGREEN_STORE", f"file://{tmp_path}/with%20space")
    assert made(tmp_path).root == tmp_path / "with space"
    monkeypatch.setenv("EVERGREEN_STORE", "s3://bucket/x")
    with pytest.raises(ConfigError, match="s3://bucket/x"):
        made(tmp_path)


def test_a_changed_byte_is_found_and_named(store: LocalStore, tmp_path: Path) -> None:
    store.put("k", write(tmp_path / "in", {"a.bin": b"1234", "b.bin": b"5678"}))
    (stored,) = store.root.rglob("b.bin")
    stored.write_bytes(b"5679")
    with pytest.raises(Corrupt, match=r"b\.bin") as caught:
        store.get("k", tmp_path / "out")
    assert caught.value.field == "b.bin"
    assert not (tmp_path / "out").exists()
    stored.unlink()
    with pytest.raises(Corrupt, match=r"b\.bin"):
        store.get("k", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "state"]


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"[]",
        b'{"files": {"../x": {"sha256": "", "size": 0}}}',
        b'{"files": {"/x": {"sha256": "", "size": 0}}}',
        b'{"files": {"a": {}}}',
        b'{"files": {"a": 1}}',
    ],
)
def test_a_broken_manifest_is_corrupt(store: LocalStore, tmp_path: Path, manifest: bytes) -> None:
    store.put("k", write(tmp_path / "in", {"a": b"1"}))
    (stored,) = store.root.rglob("manifest.json")
    stored.write_bytes(manifest)
    with pytest.raises(Corrupt, match="manifest"):
        store.get("k", tmp_path / "out")
    stored.unlink()
    with pytest.raises(Corrupt, match="manifest"):
        store.get("k", tmp_path / "out")


def test_only_plain_files_with_plain_names_are_stored(store: LocalStore, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a": b"1"})
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="link"):
        store.put("k", folder)
    (folder / "link").unlink()
    (folder / "new\nline").write_text("")
    with pytest.raises(InvalidInput, match="file name"):
        store.put("k", folder)
    assert store.list() == []


def test_old_leftovers_are_swept_and_none_is_listed(store: LocalStore, tmp_path: Path) -> None:
    store.put_new("k", b"")
    old, young = (write(store.root / ".tmp" / name, {"files/a": b"1"}) for name in ("old", "young"))
    os.utime(old, (time.time() - 90_000,) * 2)
    assert store.list() == ["k"]
    store.put_new("k2", b"")
    assert not old.exists()
    assert young.exists()


def test_a_writer_killed_halfway_leaves_nothing_to_see(store: LocalStore, tmp_path: Path) -> None:
    """Kill a process between its last file and the rename."""
    write(tmp_path / "in", {"a": b"1", "b": b"2"})
    script = f"""
import os
from pathlib import Path
from evergreen.backends.store.local import LocalStore, LocalOptions
Path.rename = lambda *_: os.kill(os.getpid(), 9)
here = Path({str(tmp_path)!r})
LocalStore(LocalOptions(), home=here, state=here / "state").put("k", here / "in")
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert list(store.root.rglob("manifest.json"))
    assert store.list() == []
    store.put("k", tmp_path / "in")
    store.get("k", tmp_path / "out")
    assert files(tmp_path / "out") == {"a": b"1", "b": b"2"}


def test_two_processes_put_one_object(store: LocalStore, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from evergreen.backends.store.local import LocalStore, LocalOptions
here = Path(sys.argv[1])
store = LocalStore(LocalOptions(), home=here, state=here / "state")
print([n for n in range(40) if store.put_new(f"race/{n}", sys.argv[2].encode())])
"""
    racers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name], stdout=subprocess.PIPE) for name in "ab"
    ]
    won = [json.loads(racer.communicate()[0]) for racer in racers]
    assert sorted(won[0] + won[1]) == list(range(40))
    assert all(store.read(f"race/{n}") == b"a" for n in won[0])


KEYS = st.sampled_from(["a", "a/b", "a/b/c", "b", "files", "a/manifest.json"])
NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
FOLDERS = st.dictionaries(NAMES, st.binary(max_size=20), max_size=3)


class LikeADict(RuleBasedStateMachine):
    """Whatever is done to it, the store holds what a dict of folders and objects would."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.store = LocalStore(LocalOptions(path=str(self.place / "store")), home=self.place, state=self.place)
        self.model: dict[str, dict[str, bytes] | bytes] = {}
        self.turn = 0

    def fresh(self) -> Path:
        self.turn += 1
        return self.place / str(self.turn)

    @rule(key=KEYS, folder=FOLDERS)
    def put(self, key: str, folder: dict[str, bytes]) -> None:
        if self.model.setdefault(key, folder) == folder:
            self.store.put(key, write(self.fresh(), folder))
        else:
            with pytest.raises(Conflict):
                self.store.put(key, write(self.fresh(), folder))

    @rule(key=KEYS, data=st.binary(max_size=20))
    def put_new(self, key: str, data: bytes) -> None:
        assert self.store.put_new(key, data) == (key not in self.model)
        self.model.setdefault(key, data)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.model.pop(key, None)

    @rule(key=KEYS)
    def look(self, key: str) -> None:
        held, out = self.model.get(key), self.fresh()
        if isinstance(held, dict):
            self.store.get(key, out)
            assert files(out) == held
        else:
            with pytest.raises(NotFound):
                self.store.get(key, out)
        if isinstance(held, bytes):
            assert self.store.read(key) == held
        else:
            with pytest.raises(NotFound):
                self.store.read(key)

    @invariant()
    def lists(self) -> None:
        assert self.store.list() == sorted(self.model)
        assert self.store.list("a") == sorted(key for key in self.model if key == "a" or key.startswith("a/"))

    def teardown(self) -> None:
        shutil.rmtree(self.place)


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_STORE", raising=False)


LikeADict.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestLikeADict = LikeADict.TestCase
