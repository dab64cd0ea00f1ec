"""DriveStore, over the official client, keeps the promises of a store; what goes wrong at Drive costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from drive_kit import elsewhere, opened, shown
from fake_drive import FOLDER, FakeDrive, Refuse
from fake_server import Fault, Reply

from evergreen.backends.store.remote import drive_folders
from evergreen.backends.store.remote.drive import DriveStore
from evergreen.core.errors import ConfigError, NotFound
from evergreen.testing.store import StoreContract, write

MIB = 1 << 20


@pytest.fixture
def server(drive_server: FakeDrive) -> FakeDrive:
    return drive_server


@pytest.fixture
def store(server: FakeDrive, tmp_path: Path) -> DriveStore:
    return opened(tmp_path)


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

    @pytest.fixture(autouse=True)
    def always_look(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(drive_folders, "FRESH_S", 0.0)

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

    def test_so_is_the_folder_of_all_for_who_only_reads(self, store: DriveStore, server: FakeDrive) -> None:
        store.write("x/y/a", b"1")
        assert store.list() == ["x/y/a"]
        (folder,) = (file.id for file in server.files.values() if file.name == "Ever Green")
        server._delete(folder)
        assert store.list() == []
        with pytest.raises(NotFound):
            store.read("x/y/a")

    def test_a_shared_folder_that_was_deleted_is_not_taken_for_an_empty_one(
        self, store: DriveStore, server: FakeDrive, tmp_path: Path
    ) -> None:
        store.write("x", b"1")
        (folder,) = (file.id for file in server.files.values() if file.name == "models")
        other = opened(tmp_path, f"gdrive://{folder}")
        assert other.read("x") == b"1"
        server._delete(folder)
        for use in (other.list, lambda: other.read("x"), lambda: other.write("y", b"")):
            with pytest.raises(ConfigError, match=folder):
                use()


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


class TestCredentials:
    def test_missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "GOOGLE_REFRESH_TOKEN", "GOOGLE_SERVICE_ACCOUNT"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ConfigError, match=r"GOOGLE_REFRESH_TOKEN.* or GOOGLE_SERVICE_ACCOUNT") as caught:
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
    assert store.staleness_s > drive_folders.FRESH_S
