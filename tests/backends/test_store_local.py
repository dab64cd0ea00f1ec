"""LocalStore keeps the promises of a store, and its own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
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
def store(tmp_path: Path) -> LocalStore:
    return made(tmp_path)


def made(folder: Path, **options: str | bool) -> LocalStore:
    store: LocalStore = make("stores", Use(use="local", **options), home=folder / "home", state=folder / "state")
    return store


class TestLocalStore(StoreContract):
    pass


def test_where_it_lies(tmp_path: Path) -> None:
    assert made(tmp_path).root == tmp_path / "state" / "store"
    assert made(tmp_path, path="blobs").root == tmp_path / "home" / "blobs"
    assert made(tmp_path, path=str(tmp_path / "x")).root == tmp_path / "x"
    assert made(tmp_path, path=f"file://{tmp_path}/with%20space").root == tmp_path / "with space"
    for no_place in ("s3://bucket/x", "file://elsewhere/x", "file:///x?sync=1"):
        with pytest.raises(ConfigError, match="cannot use"):
            made(tmp_path, path=no_place)


def test_an_object_is_a_file_of_that_name_and_a_folder_shows_its_files(store: LocalStore, tmp_path: Path) -> None:
    store.write("training_triggers/training_needed.json", b"{}")
    assert (store.root / "training_triggers" / "training_needed.json").read_bytes() == b"{}"
    store.put("models/intent/1", write(tmp_path / "in", {"exports/Model.mlmodel": b"1"}))
    assert [p.name for p in (store.root / "models/intent/1@").rglob("Model.mlmodel")] == ["Model.mlmodel"]
    (store.root / "My notes.txt").write_text("what people leave there")
    (store.root / "a.json").write_text("{}")
    assert store.list() == ["a.json", "models/intent/1", "training_triggers/training_needed.json"]


def test_what_0_1_stored_is_read(store: LocalStore, tmp_path: Path) -> None:
    old = {"files": {"a/b": {"sha256": hashlib.sha256(b"1").hexdigest(), "size": 1}}}
    write(store.root / "k@", {"files/a/b": b"1", "manifest.json": json.dumps(old).encode()})
    store.get("k", tmp_path / "out")
    assert files(tmp_path / "out") == {"a/b": b"1"}
    assert list(store.put("k", tmp_path / "out")) == ["a/b"]


def test_a_key_below_an_object_says_so(store: LocalStore, tmp_path: Path) -> None:
    store.write("a", b"1")
    for put in (
        lambda: store.write("a/b/c", b"2"),
        lambda: store.put_new("a/b", b"2"),
        lambda: store.put("a/b", write(tmp_path / "in", {})),
    ):
        with pytest.raises(Conflict, match=r'"a/b.*"a" is an object, and a file is no folder'):
            put()
    store.write("b/c", b"1")
    for put in (lambda: store.write("b", b"2"), lambda: store.put_new("b", b"2")):
        with pytest.raises(Conflict, match=r'"b" cannot be stored: there are keys below it'):
            put()
    assert store.list() == ["a", "b/c"]


def test_a_folder_that_is_on_its_way_is_not_there_and_can_be_finished(store: LocalStore, tmp_path: Path) -> None:
    """What another program keeps in step may come in any order."""
    folder = write(tmp_path / "in", {"a": b"1", "b/c": b"2"})
    store.put("k", folder)
    (store.root / "k@" / "manifest.json").unlink()
    next(store.root.rglob("b/c")).unlink()
    assert store.list() == []
    with pytest.raises(NotFound):
        store.get("k", tmp_path / "out")
    store.put("k", folder)
    store.get("k", tmp_path / "out")
    assert files(tmp_path / "out") == files(folder)
    with pytest.raises(Conflict):
        store.put("k", write(tmp_path / "other", {"a": b"2"}))


class TestSynced(StoreContract):
    """A folder that another program keeps in step, on a file system without hard links as a mounted Drive is."""

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
        def no_links(*_: object) -> None:
            raise OSError(errno.ENOTSUP, "Operation not supported")

        monkeypatch.setattr(os, "link", no_links)
        return made(tmp_path, synced=True)

    def test_what_it_promises(self, store: LocalStore, tmp_path: Path) -> None:
        assert not store.exclusive
        assert store.staleness_s == 600
        assert not made(tmp_path).exclusive, "there are no hard links here"

    def test_within_one_process_one_wins(self, store: LocalStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            for turn in range(20):
                assert sum(pool.map(lambda me, turn=turn: store.put_new(f"race/{turn}", b"%d" % me), range(8))) == 1


def test_a_local_folder_is_exclusive_and_a_synced_one_is_not(tmp_path: Path) -> None:
    assert made(tmp_path).exclusive
    assert made(tmp_path).staleness_s == 0
    for synced in (made(tmp_path, synced=True), made(tmp_path, path=f"file://{tmp_path}/x?synced=true")):
        assert (synced.exclusive, synced.staleness_s) == (False, 600)


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
DATA = st.binary(max_size=20)


class LikeADict(RuleBasedStateMachine):
    """Whatever is done to it, the store holds what a dict of folders and a dict of objects would."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.store = LocalStore(LocalOptions(path=str(self.place / "store")), home=self.place, state=self.place)
        self.folders: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.turn = 0

    def fresh(self) -> Path:
        self.turn += 1
        return self.place / str(self.turn)

    def below_an_object(self, key: str) -> bool:
        return any(key.startswith(f"{other}/") for other in self.objects)

    def no_place(self, key: str) -> bool:
        """Whether an object cannot be stored: it lies below another, or something lies below it."""
        return self.below_an_object(key) or any(k.startswith(f"{key}/") for k in (*self.folders, *self.objects))

    @rule(key=KEYS, folder=FOLDERS)
    def put(self, key: str, folder: dict[str, bytes]) -> None:
        if self.folders.get(key, folder) == folder and not self.below_an_object(key):
            self.store.put(key, write(self.fresh(), folder))
            self.folders[key] = folder
        else:
            with pytest.raises(Conflict):
                self.store.put(key, write(self.fresh(), folder))

    @rule(key=KEYS, data=DATA)
    def put_new(self, key: str, data: bytes) -> None:
        if self.no_place(key):
            with pytest.raises(Conflict):
                self.store.put_new(key, data)
        else:
            assert self.store.put_new(key, data) == (key not in self.objects)
            self.objects.setdefault(key, data)

    @rule(key=KEYS, data=DATA)
    def write(self, key: str, data: bytes) -> None:
        if self.no_place(key):
            with pytest.raises(Conflict):
                self.store.write(key, data)
        else:
            self.store.write(key, data)
            self.objects[key] = data

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.folders.pop(key, None)
        self.objects.pop(key, None)

    @rule(key=KEYS)
    def look(self, key: str) -> None:
        out = self.fresh()
        if key in self.folders:
            self.store.get(key, out)
            assert files(out) == self.folders[key]
        else:
            with pytest.raises(NotFound):
                self.store.get(key, out)
        if key in self.objects:
            assert self.store.read(key) == self.objects[key]
        else:
            with pytest.raises(NotFound):
                self.store.read(key)

    @invariant()
    def lists(self) -> None:
        held = {*self.folders, *self.objects}
        assert self.store.list() == sorted(held)
        assert self.store.list("a") == sorted(key for key in held if key == "a" or key.startswith("a/"))

    def teardown(self) -> None:
        shutil.rmtree(self.place)


LikeADict.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestLikeADict = LikeADict.TestCase
