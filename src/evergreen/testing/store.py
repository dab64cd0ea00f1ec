"""What every store promises, as a test class to inherit from."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from evergreen.core.errors import Conflict, InvalidInput, NotFound
from evergreen.core.ports import Store

_FILES: Mapping[str, bytes] = {
    "model.bin": bytes(range(256)) * 8000,
    "empty": b"",
    "deep/er/ünïcode 模型.txt": "grün".encode(),
    "manifest.json": b"{}",
}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder and return it."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class StoreContract:
    """Inherit, and give a fixture `store` that is empty."""

    def test_it_says_what_it_promises(self, store: Store) -> None:
        assert store.exclusive in (True, False)
        assert 0 <= store.staleness_s < 86_400

    def test_a_folder_comes_back_as_it_went(self, store: Store, tmp_path: Path) -> None:
        digests = store.put("models/parima/1", write(tmp_path / "in", _FILES))
        assert digests == {name: hashlib.sha256(data).hexdigest() for name, data in _FILES.items()}
        store.get("models/parima/1", tmp_path / "out")
        assert files(tmp_path / "out") == _FILES

    def test_an_empty_folder_is_a_folder(self, store: Store, tmp_path: Path) -> None:
        assert store.put("empty", write(tmp_path / "in", {})) == {}
        store.get("empty", tmp_path / "out")
        assert files(tmp_path / "out") == {}

    def test_what_was_put_does_not_change_with_its_source(self, store: Store, tmp_path: Path) -> None:
        store.put("k", write(tmp_path / "in", {"a": b"1"}))
        with (tmp_path / "in" / "a").open("ab") as file:
            file.write(b"2")
        store.get("k", tmp_path / "out")
        assert files(tmp_path / "out") == {"a": b"1"}

    def test_the_same_twice_is_one_folder(self, store: Store, tmp_path: Path) -> None:
        first = store.put("k", write(tmp_path / "in", _FILES))
        assert store.put("k", write(tmp_path / "again", _FILES)) == first
        assert list(store.list()) == ["k"]

    @pytest.mark.parametrize("other", [{"a": b"2"}, {"b": b"1"}, {"a": b"1", "b": b""}, {}])
    def test_other_content_is_a_conflict(self, store: Store, tmp_path: Path, other: Mapping[str, bytes]) -> None:
        store.put("k", write(tmp_path / "in", {"a": b"1"}))
        with pytest.raises(Conflict, match="k"):
            store.put("k", write(tmp_path / "other", other))
        store.get("k", tmp_path / "out")
        assert files(tmp_path / "out") == {"a": b"1"}

    def test_getting_into_a_folder_that_is_there(self, store: Store, tmp_path: Path) -> None:
        store.put("k", write(tmp_path / "in", {"a": b"1"}))
        out = write(tmp_path / "out", {})
        store.get("k", out)
        store.get("k", out)
        assert files(out) == {"a": b"1"}
        with pytest.raises(Conflict):
            store.get("k", write(tmp_path / "other", {"a": b"mine"}))
        assert files(tmp_path / "other") == {"a": b"mine"}

    def test_what_is_not_there(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="no/such"):
            store.get("no/such", tmp_path / "out")
        with pytest.raises(NotFound, match="no/such"):
            store.read("no/such")
        with pytest.raises(NotFound):
            store.put("k", tmp_path / "not-there")
        store.delete("no/such")
        assert list(store.list()) == []
        assert not (tmp_path / "out").exists()

    def test_files_of_odd_names_and_of_one_content(self, store: Store, tmp_path: Path) -> None:
        odd = {"a": b"1", "b/a": b"1", ".hidden": b"2", "by-sha256/x": b"1", "c d ": b"3", "'": b"3", "thumbs.db": b"4"}
        store.put("odd", write(tmp_path / "in", odd))
        store.get("odd", tmp_path / "out")
        assert files(tmp_path / "out") == odd

    def test_files_whose_names_differ_in_case_only(self, store: Store, tmp_path: Path) -> None:
        cased = {"a": b"1", "A": b"2", "b/x": b"3", "B/y": b"4"}
        if len(files(write(tmp_path / "in", cased))) < len(cased):
            pytest.skip("the file system here does not tell them apart")
        store.put("cased", tmp_path / "in")
        store.get("cased", tmp_path / "out")
        assert files(tmp_path / "out") == cased

    def test_told_while_a_folder_is_moved(self, store: Store, tmp_path: Path) -> None:
        size = sum(len(data) for data in _FILES.values())
        for told, move in (
            ([], lambda moved: store.put("k", write(tmp_path / "in", _FILES), moved)),
            ([], lambda moved: store.get("k", tmp_path / "out", moved)),
            ([], lambda moved: store.put("k", tmp_path / "in", moved)),
        ):
            seen: list[tuple[int, int]] = told
            move(lambda done, total, seen=seen: seen.append((done, total)))
            assert seen[-1] == (size, size)
            assert all(total == size for _, total in seen)
            assert seen == sorted(seen)

    def test_a_small_object_is_put_once(self, store: Store) -> None:
        assert store.put_new("beats/r1", b"one")
        assert not store.put_new("beats/r1", b"two")
        assert not store.put_new("beats/r1", b"one")
        assert store.read("beats/r1") == b"one"
        assert store.put_new("nothing", b"")
        assert store.read("nothing") == b""

    def test_an_object_is_written_over(self, store: Store) -> None:
        store.write("beats/r1.json", b"one")
        assert store.read("beats/r1.json") == b"one"
        store.write("beats/r1.json", b"")
        assert store.read("beats/r1.json") == b""
        assert not store.put_new("beats/r1.json", b"two")
        store.write("beats/r1.json", bytes(range(256)) * 1000)
        assert store.read("beats/r1.json") == bytes(range(256)) * 1000
        assert list(store.list()) == ["beats/r1.json"]

    def test_a_reader_sees_an_object_whole(self, store: Store) -> None:
        store.write("beat", b"0" * 50_000)
        done = threading.Event()

        def write_over() -> None:
            for n in range(20):
                store.write("beat", b"%d" % (n % 10) * 50_000)
            done.set()

        writer = threading.Thread(target=write_over)
        writer.start()
        while not done.is_set():
            data = store.read("beat")
            assert data == data[:1] * 50_000
        writer.join()
        assert store.read("beat") == b"9" * 50_000

    def test_objects_and_folders_are_two_name_spaces(self, store: Store, tmp_path: Path) -> None:
        store.put("k", write(tmp_path / "in", {"a": b"1"}))
        with pytest.raises(NotFound):
            store.read("k")
        assert store.put_new("k", b"2")
        assert list(store.list()) == ["k"]
        store.get("k", tmp_path / "out")
        assert files(tmp_path / "out") == {"a": b"1"}
        assert store.read("k") == b"2"
        store.put_new("object", b"3")
        with pytest.raises(NotFound):
            store.get("object", tmp_path / "none")
        with pytest.raises(NotFound):
            store.read("no/such/object")

    def test_a_folder_may_lie_below_another(self, store: Store, tmp_path: Path) -> None:
        store.put("a/b", write(tmp_path / "in", {"c": b"1"}))
        store.put("a/b/c", write(tmp_path / "other", {"d": b"2"}))
        store.write("a/b/d", b"3")
        assert list(store.list()) == ["a/b", "a/b/c", "a/b/d"]
        assert list(store.list("a/b/c")) == ["a/b/c"]
        store.delete("a/b")
        assert list(store.list()) == ["a/b/c", "a/b/d"]
        store.get("a/b/c", tmp_path / "out")
        assert files(tmp_path / "out") == {"d": b"2"}

    def test_below_an_object_is_kept_or_a_conflict(self, store: Store, tmp_path: Path) -> None:
        folder = write(tmp_path / "in", {"c": b"1"})
        for top, below in (("one", lambda key: store.write(key, b"2")), ("two", lambda key: store.put(key, folder))):
            store.write(top, b"1")
            try:
                below(f"{top}/below")
            except Conflict:
                assert list(store.list(top)) == [top]
            else:
                assert list(store.list(top)) == [top, f"{top}/below"]
            assert store.read(top) == b"1"
        store.write("three/below", b"1")
        for put in (lambda: store.write("three", b"2"), lambda: store.put_new("three", b"2")):
            with suppress(Conflict):
                put()
            assert store.read("three/below") == b"1"
        with pytest.raises(NotFound):
            store.read("three/below/not")

    def test_list_by_prefix(self, store: Store) -> None:
        for key in ("b", "a/2", "a/10", "ab", "a/20/x", "a-b", "a.b"):
            store.put_new(key, b"")
        assert list(store.list()) == sorted(["b", "a/2", "a/10", "ab", "a/20/x", "a-b", "a.b"])
        assert list(store.list("a")) == ["a/10", "a/2", "a/20/x"]
        assert list(store.list("a/")) == ["a/10", "a/2", "a/20/x"]
        assert list(store.list("a/2")) == ["a/2"]
        assert list(store.list("a/20")) == ["a/20/x"]
        assert list(store.list("c")) == []

    def test_delete_forgets(self, store: Store, tmp_path: Path) -> None:
        store.put("k/1", write(tmp_path / "in", {"a": b"1"}))
        store.put_new("k/2", b"1")
        store.delete("k/1")
        store.delete("k/2")
        store.delete("k/2")
        assert list(store.list()) == []
        with pytest.raises(NotFound):
            store.read("k/2")
        assert store.put_new("k/2", b"2")
        store.put("k/1", write(tmp_path / "other", {"a": b"2"}))
        store.get("k/1", tmp_path / "out")
        assert files(tmp_path / "out") == {"a": b"2"}
        store.delete("k/2")
        store.delete("k/1")
        store.write("k", b"3")
        assert list(store.list()) == ["k"]

    @pytest.mark.parametrize(
        "key",
        ["", "/", "/etc/x", "a/../b", "..", "a//b", "a/", ".a", "a b", "a\n", "ü", "a@", "a\\b", "x" * 300, "-/x"],
    )
    def test_what_is_no_key(self, store: Store, tmp_path: Path, key: str) -> None:
        folder = write(tmp_path / "in", {"a": b"1"})
        for use in (
            lambda: store.put(key, folder),
            lambda: store.get(key, tmp_path / "out"),
            lambda: store.put_new(key, b""),
            lambda: store.write(key, b""),
            lambda: store.read(key),
            lambda: store.delete(key),
        ):
            with pytest.raises(InvalidInput, match="is not a key"):
                use()
        assert list(store.list()) == []

    def test_of_eight_that_put_new_one_wins(self, store: Store) -> None:
        with ThreadPoolExecutor(8) as pool:
            for turn in range(5):
                start = threading.Barrier(8)

                def put(me: int, turn: int = turn, start: threading.Barrier = start) -> bool:
                    start.wait()
                    return store.put_new(f"race/{turn}", b"%d" % me)

                won = list(pool.map(put, range(8)))
                assert won.count(True) == 1 if store.exclusive else any(won)
                assert store.read(f"race/{turn}") in [b"%d" % me for me in range(8) if won[me]]

    def test_of_four_that_put_the_same_all_succeed(self, store: Store, tmp_path: Path) -> None:
        folder = write(tmp_path / "in", _FILES)
        with ThreadPoolExecutor(4) as pool:
            digests = list(pool.map(lambda _: store.put("k", folder), range(4)))
        assert all(digest == digests[0] for digest in digests)
        assert list(store.list()) == ["k"]

    def test_a_reader_never_sees_half_a_folder(self, store: Store, tmp_path: Path) -> None:
        source = write(tmp_path / "in", {f"{n}.bin": bytes([n]) * 40_000 for n in range(8)})
        done = threading.Event()

        def put() -> None:
            for n in range(8):
                store.put(f"half/{n}", source)
            done.set()

        writer = threading.Thread(target=put)
        writer.start()
        seen: set[str] = set()
        while not done.is_set():
            for key in set(store.list("half")) - seen:
                store.get(key, tmp_path / "out" / key)
                assert files(tmp_path / "out" / key) == files(source)
                seen.add(key)
        writer.join()
        assert set(store.list("half")) >= seen
