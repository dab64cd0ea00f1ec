"""DropboxStore, over the official client, keeps the promises of a store; what goes wrong at Dropbox costs nothing."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dropbox.dropbox_client
import pytest
from dropbox_kit import Detour, opened
from fake_dropbox import FakeDropbox, fake_dropbox
from fake_server import Fault, Reply

from evergreen.backends.store.remote import dropbox as ours
from evergreen.backends.store.remote import dropbox_asking as asking
from evergreen.backends.store.remote import patience
from evergreen.backends.store.remote.dropbox import DropboxStore
from evergreen.core.errors import ConfigError, Conflict, Corrupt, NotFound, Unavailable
from evergreen.testing.store import StoreContract, files, write

MIB = 1 << 20


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture
def server(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDropbox]:
    with fake_dropbox(certificates) as running:
        for name, value in running.environment.items():
            if name.startswith("DROPBOX") and "HOST" not in name:
                monkeypatch.setenv(name, value)
        monkeypatch.setattr(dropbox.dropbox_client, "create_session", Detour(running).session)
        monkeypatch.setattr(patience, "FIRST_S", 0.002)
        yield running
        assert running.wrong == []


@pytest.fixture
def store(server: FakeDropbox, tmp_path: Path) -> DropboxStore:
    return opened(tmp_path)


class TestDropboxStore(StoreContract):
    pass


def test_an_object_is_a_file_of_that_very_name(store: DropboxStore, server: FakeDropbox, tmp_path: Path) -> None:
    store.put_new("training_triggers/training_needed.json", b"{}")
    store.put("models/a/1", write(tmp_path / "in", {"Model.mlmodel": b"1"}))
    shown = {entry.shown for entry in server.entries.values()}
    assert "/Ever Green/models/training_triggers/training_needed.json" in shown
    assert any(path.startswith("/Ever Green/models/models/a/1@/") and path.endswith("Model.mlmodel") for path in shown)


def test_the_top_of_the_app_folder(server: FakeDropbox, tmp_path: Path) -> None:
    store = opened(tmp_path, "dropbox:///")
    assert list(store.list()) == []
    store.write("a", b"1")
    assert (list(store.list()), set(server.entries)) == (["a"], {"/a"})


@pytest.mark.parametrize("url", ["dropbox://folder", "dropbox:///a//b", "dropbox:///a?x=1"])
def test_what_is_no_place(server: FakeDropbox, tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="no place in Dropbox"):
        opened(tmp_path, url)


class TestCase:
    """Dropbox keeps one file for names that differ in case only."""

    def test_of_two_such_keys_the_second_is_refused(self, store: DropboxStore) -> None:
        assert store.put_new("jobs/a.json", b"1")
        for second in (store.write, store.put_new):
            for key in ("jobs/A.json", "Jobs/a.json", "Jobs/b.json"):
                with pytest.raises(Conflict, match="does not tell"):
                    second(key, b"2")
        assert list(store.list()) == ["jobs/a.json"]
        assert store.read("jobs/a.json") == b"1"

    def test_nor_does_the_other_spelling_exist(self, store: DropboxStore) -> None:
        store.write("jobs/a.json", b"1")
        with pytest.raises(NotFound):
            store.read("jobs/A.json")
        store.delete("jobs/A.json")
        assert list(store.list("Jobs")) == list(store.list("jobs/A.json")) == []
        assert store.read("jobs/a.json") == b"1"

    def test_folders_too(self, store: DropboxStore, tmp_path: Path) -> None:
        folder = write(tmp_path / "in", {"x": b"1"})
        store.put("models/a", folder)
        with pytest.raises(Conflict):
            store.put("models/A", folder)
        assert list(store.list()) == ["models/a"]


class TestCreate:
    """Exactly one caller makes a file, whatever happens to the answers."""

    def test_equal_bytes_are_no_success(self, store: DropboxStore) -> None:
        assert store.put_new("claim", b"same")
        assert not store.put_new("claim", b"same")

    def test_a_lost_answer_is_recognised_as_ones_own(self, store: DropboxStore, server: FakeDropbox) -> None:
        server.faults.append(Fault("files/upload", lose=True))
        assert store.put_new("claim", b"me 4711")
        assert not store.put_new("claim", b"me 4711")

    def test_a_lost_answer_is_not_success_where_another_won(self, store: DropboxStore, server: FakeDropbox) -> None:
        store.put_new("claim", b"other")
        server.faults.append(Fault("files/upload", lose=True))
        assert not store.put_new("claim", b"me")
        assert store.read("claim") == b"other"

    def test_of_two_processes_one_wins_each_time(self, server: FakeDropbox, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from evergreen.core import config, plugins\n"
            "s = plugins.make('stores', config.store_at('dropbox:///r'), home=Path('.'), state=Path(sys.argv[1]))\n"
            "s.write('here/' + sys.argv[2], b'')\n"
            "while len(s.list('here')) < 2: pass\n"
            "print([n for n in range(20) if s.put_new(f'r/{n}', sys.argv[2].encode())])"
        )
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(tmp_path / me), me],
                env={**os.environ, **server.environment},
                stdout=subprocess.PIPE,
                text=True,
            )
            for me in ("a", "b")
        ]
        won = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
        assert sorted(won[0] + won[1]) == list(range(20))
        store = opened(tmp_path, "dropbox:///r")
        assert [store.read(f"r/{n}") for n in range(20)] == [b"a" if n in won[0] else b"b" for n in range(20)]


class TestFaults:
    """One thing that goes wrong at a time."""

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(lose=True),
            Fault(cut=0),
            Fault(cut=10),
            Fault(cut_reply=3),
            Fault(reply=Reply(500, b"oops", "text/plain"), times=3),
            Fault(reply=Reply(503, b"", "text/html"), times=2),
            Fault(reply=Reply(429, b"", "text/plain", {"Retry-After": "0"})),
        ],
        ids=["answer lost", "cut", "cut in the middle", "answer cut", "500", "503", "429 in words"],
    )
    def test_is_asked_again(self, store: DropboxStore, server: FakeDropbox, tmp_path: Path, fault: Fault) -> None:
        folder = write(tmp_path / "in", {"a": b"1" * 1000, "b/c": b"2" * 100_000})
        for n, route in enumerate(("upload", "download", "list_folder", "delete_v2", "get_metadata", "oauth2")):
            server.faults = [Fault(route, fault.times, fault.reply, fault.lose, fault.cut, fault.cut_reply)]
            if route == "oauth2":
                store = opened(tmp_path)
            store.put(f"k{n}", folder)
            store.get(f"k{n}", tmp_path / "out" / str(n))
            assert files(tmp_path / "out" / str(n)) == files(folder)
            store.write("w", b"%d" % n)
            assert store.read("w") == b"%d" % n
            assert set(store.list()) == {"w", f"k{n}"}
            store.delete(f"k{n}")
            assert store.list() == ["w"]
            assert server.faults == []

    def test_waits_as_long_as_it_is_told(
        self, store: DropboxStore, server: FakeDropbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited: list[float] = []
        whole = patience.patiently
        monkeypatch.setattr(asking, "patiently", lambda ask, wait: whole(ask, wait, sleep=waited.append))
        server.faults.append(Fault("files/upload", reply=server.busy(7)))
        store.write("a", b"1")
        assert waited == [7.0]

    def test_many_writers_at_once_are_asked_to_queue(self, store: DropboxStore, server: FakeDropbox) -> None:
        error = {".tag": "path", "reason": {".tag": "too_many_write_operations"}, "upload_session_id": "x"}
        said = {"error_summary": "path/too_many_write_operations/..", "error": error}
        server.faults.append(Fault("files/upload", reply=Reply.json(409, said)))
        assert store.put_new("a", b"1")

    def test_a_token_that_ran_out_is_renewed(self, store: DropboxStore, server: FakeDropbox) -> None:
        store.write("a", b"1")
        server.tokens = dict.fromkeys(server.tokens, 0.0)
        assert store.read("a") == b"1"
        assert len(server.tokens) == 2

    def test_who_stays_away_is_unavailable(self, store: DropboxStore, server: FakeDropbox) -> None:
        server.faults.append(Fault("files/", times=99, reply=Reply(503)))
        with pytest.raises(Unavailable, match="does not answer"):
            store.read("a")

    def test_a_full_dropbox(self, store: DropboxStore, server: FakeDropbox) -> None:
        error = {".tag": "path", "reason": {".tag": "insufficient_space"}, "upload_session_id": "x"}
        server.faults.append(Fault("files/upload", reply=Reply.json(409, {"error_summary": "", "error": error})))
        with pytest.raises(Unavailable, match="insufficient_space") as caught:
            store.write("a", b"1")
        assert "space" in str(caught.value.hint)

    def test_bytes_that_went_bad_there(self, store: DropboxStore, server: FakeDropbox, tmp_path: Path) -> None:
        store.write("a", b"1234")
        store.put("f", write(tmp_path / "in", {"x": b"1234"}))
        for entry in server.entries.values():
            if entry.content and not entry.shown.endswith("manifest.json"):
                entry.content.spoil()
        with pytest.raises(Corrupt):
            store.read("a")
        with pytest.raises(Corrupt):
            store.get("f", tmp_path / "out")

    def test_a_list_of_many_pages_that_is_reset(self, store: DropboxStore, server: FakeDropbox) -> None:
        for n in range(9):
            store.write(f"d/{n}", b"")
        server.page = 2
        reset = Reply.json(409, {"error_summary": "reset/..", "error": {".tag": "reset"}})
        server.faults.append(Fault("list_folder/continue", reply=reset, skip=2))
        assert store.list("d") == [f"d/{n}" for n in range(9)]

    def test_rounds_of_listing_and_reading_lose_nothing(self, store: DropboxStore, server: FakeDropbox) -> None:
        server.fault_rate, server.page = 0.2, 5
        wrong = lost_in_rounds(store, 40)
        assert wrong == []

    def test_nothing_is_left_of_a_folder(self, store: DropboxStore, server: FakeDropbox, tmp_path: Path) -> None:
        store.put("m/1", write(tmp_path / "in", {"a": b"1", "b/c": b"2"}))
        store.write("m/x", b"")
        store.delete("m/1")
        assert [path for path in server.entries if "1@" in path] == []
        assert store.list() == ["m/x"]

    def test_an_answer_from_somebody_else(self, store: DropboxStore, server: FakeDropbox) -> None:
        page = Reply(200, b"<html>Log in to the hotel</html>", "text/html")
        server.faults.append(Fault("files/upload", reply=page))
        store.write("a", b"1")
        server.faults.append(Fault("files/", times=99, reply=page))
        with pytest.raises(Unavailable, match="does not answer"):
            store.list()

    def test_removing_never_takes_a_folder(self, store: DropboxStore) -> None:
        store.write("a/b", b"1")
        store.delete("a")
        assert store.read("a/b") == b"1"

    def test_an_empty_folder_is_in_nobodys_way(self, store: DropboxStore, server: FakeDropbox) -> None:
        store.write("a/b/c", b"1")
        with pytest.raises(Conflict, match="folder"):
            store.write("a", b"2")
        store.delete("a/b/c")
        store.write("a", b"2")
        assert (store.list(), len(server.entries)) == (["a"], 3)

    def test_nor_what_was_put_there_meanwhile(self, store: DropboxStore, server: FakeDropbox) -> None:
        store.write("a", b"1")
        error = {".tag": "path_write", "path_write": {".tag": "conflict", "conflict": {".tag": "file"}}}
        said = Reply.json(409, {"error_summary": "", "error": error})
        server.faults.append(Fault("delete_v2", reply=said))
        store.delete("a")
        assert store.list() == []
        server.faults.append(Fault("delete_v2", reply=said, times=9))
        store.write("a", b"1")
        with pytest.raises(Conflict, match="faster"):
            store.delete("a")


def lost_in_rounds(store: DropboxStore, rounds: int) -> list[int]:
    """Write, list and read; return the rounds in which something was missing or old."""
    wrong, expected = [], {}
    for n in range(rounds):
        key = f"r/{random.Random(n).randrange(20)}"
        expected[key] = b"%d" % n
        store.write(key, expected[key])
        if list(store.list("r")) != sorted(expected) or any(store.read(k) != v for k, v in list(expected.items())[-3:]):
            wrong.append(n)
    return wrong


class TestLargeFiles:
    """In parts, that are not sent twice."""

    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ours, "CHUNK", MIB)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write(tmp_path / "in", {"big": random.Random(1).randbytes(5 * MIB + 17)})

    def test_go_on_in_a_new_process(self, server: FakeDropbox, folder: Path, tmp_path: Path) -> None:
        server.faults.append(Fault("append_v2", times=99, cut=1000, skip=3))
        with pytest.raises(Unavailable):
            opened(tmp_path).put("k", folder)
        server.faults.clear()
        server.received = 0
        told: list[int] = []
        opened(tmp_path).put("k", folder, moved=lambda done, _: told.append(done))
        assert server.received < 2 * MIB + 10_000
        assert told[-1] == 5 * MIB + 17
        opened(tmp_path).get("k", tmp_path / "out")
        assert files(tmp_path / "out") == files(folder)
        assert not any((tmp_path / "state").rglob("*.json"))

    @pytest.mark.parametrize("route", ["start", "append_v2", "finish"])
    @pytest.mark.parametrize("fault", [Fault(lose=True), Fault(cut=70_000), Fault(reply=Reply(502), times=2)])
    def test_of_which_something_breaks(
        self, store: DropboxStore, server: FakeDropbox, folder: Path, tmp_path: Path, route: str, fault: Fault
    ) -> None:
        server.faults.append(Fault(f"upload_session/{route}", fault.times, fault.reply, fault.lose, fault.cut))
        store.put("k", folder)
        store.get("k", tmp_path / "out")
        assert files(tmp_path / "out") == files(folder)
        # A part is sent again, or, when the answer to the last was lost, found to be there.
        assert server.received < 7.5 * MIB

    def test_whose_upload_dropbox_has_forgotten(
        self, store: DropboxStore, server: FakeDropbox, folder: Path, tmp_path: Path
    ) -> None:
        server.faults.append(Fault("append_v2", times=99, cut=0, skip=2))
        with pytest.raises(Unavailable):
            store.put("k", folder)
        server.faults.clear()
        server.sessions.clear()
        store.put("k", folder)
        store.get("k", tmp_path / "out")
        assert files(tmp_path / "out") == files(folder)

    def test_that_two_send_at_once(self, store: DropboxStore, folder: Path, tmp_path: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda _: opened(tmp_path).put("k", folder), range(2))
        assert first == second
        store.get("k", tmp_path / "out")
        assert files(tmp_path / "out") == files(folder)

    def test_that_break_while_they_are_fetched(
        self, store: DropboxStore, server: FakeDropbox, folder: Path, tmp_path: Path
    ) -> None:
        store.put("k", folder)
        server.faults.append(Fault("files/download", times=12, cut_reply=2 * MIB + 5, skip=1))
        store.get("k", tmp_path / "out")
        assert files(tmp_path / "out") == files(folder)


class TestCredentials:
    def test_missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("DROPBOX_APP_KEY", "DROPBOX_APP_SECRET", "DROPBOX_REFRESH_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("DROPBOX_APP_KEY", "k")
        with pytest.raises(ConfigError, match="DROPBOX_APP_SECRET and DROPBOX_REFRESH_TOKEN") as caught:
            opened(tmp_path)
        assert "dropbox.com/developers" in str(caught.value.hint)

    @pytest.mark.parametrize("name", ["DROPBOX_APP_KEY", "DROPBOX_APP_SECRET", "DROPBOX_REFRESH_TOKEN"])
    def test_wrong(self, server: FakeDropbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "wr0ng-s3cret")
        with pytest.raises(ConfigError, match="does not accept the credentials") as caught:
            opened(tmp_path).list()
        assert name in str(caught.value.hint)
        for shown in (str(caught.value), str(caught.value.hint), repr(caught.value.__cause__)):
            assert "wr0ng" not in shown

    def test_an_app_without_the_permission(self, store: DropboxStore, server: FakeDropbox) -> None:
        error = {".tag": "missing_scope", "required_scope": "files.content.write"}
        server.faults.append(
            Fault("files/", reply=Reply.json(401, {"error_summary": "missing_scope/", "error": error}))
        )
        with pytest.raises(ConfigError, match="missing_scope") as caught:
            store.write("a", b"")
        assert "files.content.write" in str(caught.value.hint)
