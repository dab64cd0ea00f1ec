"""DriveStore, over the official client, keeps the promises of a store; what goes wrong at Drive costs nothing."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_drive import FOLDER, ROOT, FakeDrive, Refuse, fake_drive
from fake_server import Fault, Reply

from evergreen.backends.store.remote import drive as ours
from evergreen.backends.store.remote import drive_asking as asking
from evergreen.backends.store.remote import drive_folders, patience
from evergreen.backends.store.remote.drive import DriveStore
from evergreen.core.config import store_at
from evergreen.core.errors import ConfigError, Corrupt, NotFound, Unavailable
from evergreen.core.plugins import make
from evergreen.testing.store import StoreContract, files, write

MIB = 1 << 20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDrive]:
    with fake_drive() as running:
        monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT", raising=False)
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(patience, "FIRST_S", 0.002)
        yield running
        assert running.wrong == []


@pytest.fixture
def store(server: FakeDrive, tmp_path: Path) -> DriveStore:
    return opened(tmp_path)


def opened(folder: Path, url: str = "gdrive:///Ever Green/models") -> DriveStore:
    store: DriveStore = make("stores", store_at(url), home=folder, state=folder / "state")
    return store


def elsewhere(folder: Path, url: str = "gdrive:///Ever Green/models") -> DriveStore:
    """Return a store as another machine has it: it knows nothing of what this process did."""
    store = opened(folder, url)
    store.objects._known = ours._Known()  # type: ignore[attr-defined]
    return store


def shown(server: FakeDrive) -> list[str]:
    """Return the paths of all files as people see them."""

    def path(id: str) -> str:
        return "" if id == ROOT else f"{path(server.files[id].parents[0])}/{server.files[id].name}"

    return sorted(path(file.id) for file in server.files.values() if file.kind != FOLDER and not file.trashed)


class TestDriveStore(StoreContract):
    pass


class TestWithLateLists(StoreContract):
    """One process sees what it did at once, though Drive's lists do not show it for a while."""

    @pytest.fixture
    def store(self, server: FakeDrive, tmp_path: Path) -> DriveStore:
        server.lag_s = 0.3
        return opened(tmp_path)


def test_an_object_is_a_file_of_that_very_name(store: DriveStore, server: FakeDrive, tmp_path: Path) -> None:
    store.put_new("training_triggers/training_needed.json", b"{}")
    store.put("models/a/1", write(tmp_path / "in", {"Model.mlmodel": b"1"}))
    assert "/Ever Green/models/training_triggers/training_needed.json" in shown(server)
    assert any(p.startswith("/Ever Green/models/models/a/1@/") and p.endswith("/Model.mlmodel") for p in shown(server))
    assert {f.kind for f in server.files.values() if f.name == "training_needed.json"} == {"application/json"}


def test_a_folder_by_its_id(store: DriveStore, server: FakeDrive, tmp_path: Path) -> None:
    store.write("a", b"1")
    (id,) = (file.id for file in server.files.values() if file.name == "Ever Green")
    other = opened(tmp_path, f"gdrive://{id}/models")
    assert other.read("a") == b"1"
    other.write("b", b"2")
    assert list(store.list()) == ["a", "b"]


def test_a_folder_of_a_shared_drive(server: FakeDrive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path).write("a", b"1")
    (id,) = (file.id for file in server.files.values() if file.name == "models")
    top = Reply.json(200, {"id": id, "mimeType": FOLDER, "driveId": "0ADRIVE", "trashed": False})
    server.faults.append(Fault(f"files/{id}", reply=top))
    store = opened(tmp_path, f"gdrive://{id}")
    assert store.read("a") == b"1"
    # Members may not delete there, but put into the bin.
    forbidden = Refuse(403, "insufficientFilePermissions", "The user does not have sufficient permissions.").reply
    server.faults.append(Fault("DELETE", reply=forbidden))
    store.delete("a")
    assert (store.list(), shown(server)) == ([], [])


@pytest.mark.parametrize("url", ["gdrive:///a?x=1", "gdrive:///a/../b"])
def test_what_is_no_place(server: FakeDrive, tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="no place in Google Drive"):
        opened(tmp_path, url)


def test_a_folder_that_is_not_there(server: FakeDrive, tmp_path: Path) -> None:
    store = opened(tmp_path, "gdrive://1NoSuchFolder/x")
    for use in (store.list, lambda: store.write("a", b""), lambda: store.read("a")):
        with pytest.raises(ConfigError, match="1NoSuchFolder") as caught:
            use()
        assert "share" in str(caught.value.hint)


class TestNamesAreNotUnique:
    """Drive keeps as many files of one name in a folder as it is given."""

    def twins(self, server: FakeDrive, name: str) -> list[str]:
        return [path for path in shown(server) if path.endswith("/" + name)]

    def test_all_readers_take_the_first_made(self, server: FakeDrive, tmp_path: Path) -> None:
        first, second = elsewhere(tmp_path), elsewhere(tmp_path)
        first.write("other", b"")
        server.lag_s = 0.5
        assert first.put_new("claim", b"1")
        assert second.put_new("claim", b"2")  # it could not know: exclusive is False
        server.lag_s = 0
        assert len(self.twins(server, "claim")) == 2
        assert {elsewhere(tmp_path).read("claim") for _ in range(3)} == {b"1"}
        assert first.read("claim") == second.read("claim") == b"1"
        assert list(second.list()) == ["claim", "other"]
        second.delete("claim")
        assert self.twins(server, "claim") == []

    def test_but_what_was_written_last_where_it_was_written(self, server: FakeDrive, tmp_path: Path) -> None:
        first, second = elsewhere(tmp_path), elsewhere(tmp_path)
        first.write("other", b"")
        server.lag_s = 0.5
        first.write("beat", b"1")
        second.write("beat", b"2")  # the process was started again and sees no file yet
        server.lag_s = 0
        assert len(self.twins(server, "beat")) == 2
        assert first.read("beat") == second.read("beat") == elsewhere(tmp_path).read("beat") == b"2"
        second.write("beat", b"3")
        assert first.read("beat") == elsewhere(tmp_path).read("beat") == b"3"
        elsewhere(tmp_path).write("beat", b"4")
        assert first.read("beat") == second.read("beat") == b"4"

    def test_writing_what_was_created(self, store: DriveStore, server: FakeDrive, tmp_path: Path) -> None:
        store.put_new("k", b"1")
        elsewhere(tmp_path).write("k", b"2")
        assert store.read("k") == b"2"
        assert len(self.twins(server, "k")) == 1

    def test_folders_made_at_once_do_not_split_the_tree(self, server: FakeDrive, tmp_path: Path) -> None:
        server.lag_s = 0.5
        first, second = elsewhere(tmp_path), elsewhere(tmp_path)
        first.write("jobs/r1/first.json", b"1")
        second.write("jobs/r1/second.json", b"2")
        server.lag_s = 0
        assert sum(file.name == "r1" for file in server.files.values()) == 2
        third = elsewhere(tmp_path)
        assert list(third.list("jobs/r1")) == ["jobs/r1/first.json", "jobs/r1/second.json"]
        assert (third.read("jobs/r1/first.json"), third.read("jobs/r1/second.json")) == (b"1", b"2")
        third.write("jobs/r1/second.json", b"3")
        assert len(self.twins(server, "second.json")) == 1

    def test_the_loser_takes_its_file_away_when_it_sees(self, server: FakeDrive, tmp_path: Path) -> None:
        first, second = elsewhere(tmp_path), elsewhere(tmp_path)
        first.write("jobs/x", b"")
        hidden = Reply.json(200, {"files": []})
        assert second.list() == ["jobs/x"]
        assert first.put_new("jobs/claim", b"1")
        server.faults.append(Fault("claim", reply=hidden))  # late, when it looked before it made its own
        assert not second.put_new("jobs/claim", b"2")
        assert len(self.twins(server, "claim")) == 1

    def test_names_that_differ_in_case_are_two(self, store: DriveStore) -> None:
        assert store.put_new("a", b"1")
        assert store.put_new("A", b"2")
        assert (store.read("a"), store.read("A")) == (b"1", b"2")

    def test_what_people_put_beside_is_left_alone(self, store: DriveStore, server: FakeDrive) -> None:
        store.write("jobs/a", b"1")
        (folder,) = (file for file in server.files.values() if file.name == "jobs")
        said = {"name": "b", "parents": [folder.id], "mimeType": "application/vnd.google-apps.document"}
        server._save(said, None, None).content = None
        server._save({"name": "c/d", "parents": [folder.id]}, None, server.content(b""))
        assert list(store.list()) == ["jobs/a"]
        with pytest.raises(NotFound):
            store.read("jobs/b")


class TestPeople:
    """Somebody cleans up while it runs."""

    def test_a_file_in_the_bin_is_gone(self, store: DriveStore, server: FakeDrive) -> None:
        store.write("a", b"1")
        next(file for file in server.files.values() if file.name == "a").trashed = True
        with pytest.raises(NotFound):
            store.read("a")
        store.write("a", b"2")
        assert store.read("a") == b"2"

    def test_folders_that_were_deleted_are_made_again(self, store: DriveStore, server: FakeDrive) -> None:
        store.write("x/y/a", b"1")
        (folder,) = (file.id for file in server.files.values() if file.name == "x")
        server._delete(folder)
        store.write("x/y/a", b"2")
        store.write("x/y/b", b"3")
        assert (store.read("x/y/a"), store.read("x/y/b")) == (b"2", b"3")


class TestCreate:
    def test_equal_bytes_are_no_success(self, store: DriveStore) -> None:
        assert store.put_new("claim", b"same")
        assert not store.put_new("claim", b"same")

    def test_a_lost_answer_is_recognised_as_ones_own(self, store: DriveStore, server: FakeDrive) -> None:
        server.faults.append(Fault("/upload/drive/v3/files", lose=True))
        assert store.put_new("claim", b"me")
        assert len(shown(server)) == 1

    def test_two_processes_at_once_agree_in_the_end(self, server: FakeDrive, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from evergreen.core import config, plugins\n"
            "s = plugins.make('stores', config.store_at('gdrive:///r'), home=Path('.'), state=Path(sys.argv[1]))\n"
            "s.write('here/' + sys.argv[2], b'')\n"
            "while len(s.list('here')) < 2: pass\n"
            "print([n for n in range(10) if s.put_new(f'r/{n}', sys.argv[2].encode())])"
        )
        command = [sys.executable, "-c", code]
        racers = [
            subprocess.Popen([*command, str(tmp_path / me), me], stdout=subprocess.PIPE, text=True, env=os.environ)
            for me in ("a", "b")
        ]
        won = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
        assert set(won[0] + won[1]) == set(range(10))  # never none
        readers = [elsewhere(tmp_path, "gdrive:///r") for _ in range(2)]
        assert list(readers[0].list("r")) == [f"r/{n}" for n in range(10)]
        for n in range(10):
            read = {reader.read(f"r/{n}") for reader in readers}
            assert len(read) == 1
            assert n in won[0 if read == {b"a"} else 1]


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
            Fault(reply=Refuse(403, "rateLimitExceeded", "Rate Limit Exceeded").reply),
            Fault(reply=Refuse(403, "userRateLimitExceeded", "User Rate Limit Exceeded").reply),
            Fault(reply=Refuse(429, "rateLimitExceeded", "Too many").reply, times=2),
            Fault(reply=Refuse(401, "authError", "Invalid Credentials").reply),
        ],
        ids=["answer lost", "cut", "cut in the middle", "answer cut", "500", "503", "403", "403 user", "429", "401"],
    )
    def test_is_asked_again(self, store: DriveStore, server: FakeDrive, tmp_path: Path, fault: Fault) -> None:
        folder = write(tmp_path / "in", {"a": b"1" * 1000, "b/c": b"2" * 100_000})
        calls = ("POST /upload", "PATCH /upload", "alt=media", "files?q", "DELETE", "generateIds", "POST /drive")
        for n, call in enumerate(calls):
            if call == "generateIds":
                store = elsewhere(tmp_path)
            server.faults = [Fault(call, fault.times, fault.reply, fault.lose, fault.cut, fault.cut_reply)]
            store.put(f"k{n}", folder)
            store.get(f"k{n}", tmp_path / "out" / str(n))
            assert files(tmp_path / "out" / str(n)) == files(folder)
            store.write("w", b"%d" % n)
            store.write("w", b"%d %d" % (n, n))
            assert store.read("w") == b"%d %d" % (n, n)
            assert list(store.list()) == [f"k{n}", "w"]
            store.delete(f"k{n}")
            assert list(store.list()) == ["w"]
            assert server.faults == []
            assert len(shown(server)) == 1

    def test_waits_as_long_as_it_is_told(
        self, store: DriveStore, server: FakeDrive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited: list[float] = []
        whole = patience.patiently
        monkeypatch.setattr(asking, "patiently", lambda ask, wait: whole(ask, wait, sleep=waited.append))
        server.faults.append(Fault("upload", reply=server.busy(7)))
        store.write("a", b"1")
        assert waited == [7.0]

    def test_a_token_that_ran_out_is_renewed(self, store: DriveStore, server: FakeDrive) -> None:
        store.write("a", b"1")
        server.tokens = dict.fromkeys(server.tokens, 0.0)
        assert store.read("a") == b"1"
        assert len(server.tokens) == 2

    def test_who_stays_away_is_unavailable(self, store: DriveStore, server: FakeDrive) -> None:
        server.faults.append(Fault("/drive/", times=99, reply=Reply(503)))
        with pytest.raises(Unavailable, match="refuses a request"):
            store.read("a")
        server.faults = [Fault("/drive/", times=99, cut=0)]
        with pytest.raises(Unavailable, match="does not answer"):
            store.read("a")

    def test_a_full_drive(self, store: DriveStore, server: FakeDrive) -> None:
        full = Refuse(403, "storageQuotaExceeded", "The user's Drive storage quota has been exceeded.").reply
        server.faults.append(Fault("upload", reply=full))
        with pytest.raises(Unavailable, match="no room") as caught:
            store.write("a", b"1")
        assert "service account has none" in str(caught.value.hint)

    def test_what_the_account_may_not_do(self, store: DriveStore, server: FakeDrive) -> None:
        server.faults.append(Fault("upload", reply=Refuse(403, "insufficientFilePermissions", "no").reply))
        with pytest.raises(ConfigError, match="does not allow") as caught:
            store.write("a", b"1")
        assert "editor" in str(caught.value.hint)

    def test_bytes_that_went_bad_there(self, store: DriveStore, server: FakeDrive, tmp_path: Path) -> None:
        store.put("f", write(tmp_path / "in", {"x": b"1234"}))
        for file in server.files.values():
            if file.name == "x" and file.content:
                file.content.spoil()
        with pytest.raises(Corrupt):
            store.get("f", tmp_path / "out")

    def test_bytes_that_went_bad_on_the_way_are_sent_again(
        self, store: DriveStore, server: FakeDrive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, spoilt = server.content, []

        def content(data: bytes = b"") -> object:
            if data == b"1234" and not spoilt:
                spoilt.append(data)
                return whole(b"1235")
            return whole(data)

        monkeypatch.setattr(server, "content", content)
        store.put("f", write(tmp_path / "in", {"x": b"1234"}))
        store.get("f", tmp_path / "out")
        assert (files(tmp_path / "out"), len(spoilt)) == ({"x": b"1234"}, 1)

    def test_lists_of_many_pages_and_folders(self, store: DriveStore, server: FakeDrive) -> None:
        keys = sorted([f"d/{n}" for n in range(9)] + [f"e/{n}/{n}" for n in range(30)])
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.write(key, b""), keys))
        server.page = 2
        assert list(store.list()) == keys

    @pytest.mark.parametrize("lag_s", [0.0, 0.05])
    def test_rounds_of_listing_and_reading_lose_nothing(
        self, store: DriveStore, server: FakeDrive, lag_s: float
    ) -> None:
        server.fault_rate, server.page, server.lag_s = 0.1, 5, lag_s
        wrong, expected = [], {}
        for n in range(40):
            key = f"r/{random.Random(n).randrange(15)}"
            expected[key] = b"%d" % n
            store.write(key, expected[key])
            listed = list(store.list("r"))
            if listed != sorted(expected) or any(store.read(k) != v for k, v in list(expected.items())[-3:]):
                wrong.append(n)
        assert wrong == []


class TestLargeFiles:
    """In parts, that are not sent twice."""

    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ours, "CHUNK", MIB)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write(tmp_path / "in", {"big": random.Random(1).randbytes(5 * MIB + 17)})

    def test_go_on_in_a_new_process(self, server: FakeDrive, folder: Path, tmp_path: Path) -> None:
        server.faults.append(Fault("upload_id", times=99, cut=700_000, skip=3))
        with pytest.raises(Unavailable):
            opened(tmp_path).put("k", folder)
        server.faults.clear()
        server.received = 0
        told: list[int] = []
        elsewhere(tmp_path).put("k", folder, moved=lambda done, _: told.append(done))
        assert server.received < 2 * MIB + 10_000
        assert told[-1] == 5 * MIB + 17
        opened(tmp_path).get("k", tmp_path / "out")
        assert files(tmp_path / "out") == files(folder)
        assert not any((tmp_path / "state").rglob("*.json"))

    @pytest.mark.parametrize("call", ["uploadType=resumable", "upload_id"])
    @pytest.mark.parametrize("skip", [0, 5])
    @pytest.mark.parametrize(
        "fault", [Fault(lose=True), Fault(cut=400_000), Fault(reply=Reply(502), times=2)], ids=["lost", "cut", "502"]
    )
    def test_of_which_something_breaks(
        self, store: DriveStore, server: FakeDrive, folder: Path, tmp_path: Path, call: str, skip: int, fault: Fault
    ) -> None:
        server.faults.append(Fault(call, fault.times, fault.reply, fault.lose, fault.cut, skip=skip))
        store.put("k", folder)
        store.get("k", tmp_path / "out")
        assert files(tmp_path / "out") == files(folder)
        assert server.received < 7.1 * MIB
        assert server.faults == []
        assert len(shown(server)) == 2

    def test_whose_upload_drive_has_forgotten(
        self, store: DriveStore, server: FakeDrive, folder: Path, tmp_path: Path
    ) -> None:
        server.faults.append(Fault("upload_id", times=99, cut=0, skip=2))
        with pytest.raises(Unavailable):
            store.put("k", folder)
        server.faults.clear()
        server.uploads.clear()
        store.put("k", folder)
        store.get("k", tmp_path / "out")
        assert files(tmp_path / "out") == files(folder)

    def test_that_break_while_they_are_fetched(
        self, store: DriveStore, server: FakeDrive, folder: Path, tmp_path: Path
    ) -> None:
        store.put("k", folder)
        server.faults.append(Fault("alt=media", times=4, cut_reply=100_000, skip=2))
        store.get("k", tmp_path / "out")
        assert files(tmp_path / "out") == files(folder)


class TestCredentials:
    def test_missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "GOOGLE_REFRESH_TOKEN", "GOOGLE_SERVICE_ACCOUNT"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ConfigError, match="GOOGLE_REFRESH_TOKEN.* or GOOGLE_SERVICE_ACCOUNT") as caught:
            opened(tmp_path)
        assert "console.cloud.google.com" in str(caught.value.hint)

    @pytest.mark.parametrize("name", ["GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "GOOGLE_REFRESH_TOKEN"])
    def test_wrong(self, server: FakeDrive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "wr0ng-s3cret")
        with pytest.raises(ConfigError, match="does not accept the credentials") as caught:
            opened(tmp_path).list()
        assert name in str(caught.value.hint)
        for said in (str(caught.value), str(caught.value.hint), repr(caught.value.__cause__)):
            assert "wr0ng" not in said

    @pytest.mark.parametrize("as_file", [False, True])
    def test_a_service_account(
        self, server: FakeDrive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_file: bool
    ) -> None:
        said = server.service_account
        if as_file:
            (tmp_path / "key.json").write_text(said)
            said = str(tmp_path / "key.json")
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", said)
        monkeypatch.delenv("GOOGLE_REFRESH_TOKEN")
        store = opened(tmp_path)
        store.write("a", b"1")
        assert store.read("a") == b"1"

    @pytest.mark.parametrize("said", ["{", '{"type": "service_account"}', "/no/such/file.json"])
    def test_what_is_no_service_account(
        self, server: FakeDrive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
    ) -> None:
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", said)
        with pytest.raises(ConfigError, match="is not the key of a service account"):
            opened(tmp_path)

    def test_a_service_account_whose_key_was_deleted(
        self, server: FakeDrive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", server.service_account.replace("worker@", "gone@"))
        with pytest.raises(ConfigError, match="does not accept") as caught:
            opened(tmp_path).list()
        assert "GOOGLE_SERVICE_ACCOUNT" in str(caught.value.hint)


def test_folders_are_not_looked_up_each_time(store: DriveStore, server: FakeDrive) -> None:
    store.write("a/b/c", b"1")
    assert store.read("a/b/c") == b"1"
    server.calls.clear()
    assert store.read("a/b/c") == b"1"
    assert sum(server.calls.values()) == 2
    assert drive_folders.FRESH_S < store.staleness_s
