"""What goes wrong at Google Drive, one thing at a time, costs nothing; large files go on where they broke off."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from drive_kit import elsewhere, opened, shown
from fake_drive import FakeDrive, Refuse
from fake_server import Fault, Reply

from evergreen.backends.store.remote import drive as ours
from evergreen.backends.store.remote import drive_asking as asking
from evergreen.backends.store.remote import patience
from evergreen.backends.store.remote.drive import DriveStore
from evergreen.core.errors import ConfigError, Corrupt, Unavailable
from evergreen.testing.store import files, write

MIB = 1 << 20


@pytest.fixture
def server(drive_server: FakeDrive) -> FakeDrive:
    return drive_server


@pytest.fixture
def store(server: FakeDrive, tmp_path: Path) -> DriveStore:
    return opened(tmp_path)


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

    def test_nothing_is_left_of_a_folder(self, store: DriveStore, server: FakeDrive, tmp_path: Path) -> None:
        store.put("m/1", write(tmp_path / "in", {"a": b"1", "b/c": b"2"}))
        store.write("m/x", b"")
        store.delete("m/1")
        assert sorted(file.name for file in server.files.values()) == ["Ever Green", "m", "models", "x"]
        store.put("m/1", tmp_path / "in")
        store.get("m/1", tmp_path / "out")

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
