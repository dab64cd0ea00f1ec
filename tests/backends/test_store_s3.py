"""S3Store keeps the promises of a store against a real server, and against one that fails, lies and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from fake_server import Fault, Reply
from s3_server import BUCKET, ENVIRONMENT, FaultyS3, refusal, s3_server

from evergreen.backends.store.remote.objects import RemoteStore
from evergreen.backends.store.remote.s3 import S3Objects, S3Options
from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, Corrupt, EvergreenError, Unavailable
from evergreen.core.plugins import make
from evergreen.testing.store import StoreContract, files, write

MIB = 1024 * 1024
PART = 5 * MIB


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def faulty(endpoint: str) -> Iterator[FaultyS3]:
    server = FaultyS3(endpoint)
    server.start()
    yield server
    server.close()


@pytest.fixture
def url() -> str:
    return f"s3://{BUCKET}/{uuid4().hex}/deep"


@pytest.fixture
def store(endpoint: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    made: RemoteStore = make("stores", Use.model_validate({"use": "s3", "url": url}), home=tmp_path, state=tmp_path)
    return made


def through(server: FaultyS3, url: str, part: int = PART) -> RemoteStore:
    """A store behind a server that fails; it does not really wait."""
    return RemoteStore(S3Objects(S3Options(url=url, endpoint=server.url), part=part, sleep=lambda _: None))


class TestS3Store(StoreContract):
    pass


def test_at_the_top_of_a_bucket(endpoint: str, tmp_path: Path) -> None:
    store = RemoteStore(S3Objects(S3Options(url=f"s3://{BUCKET}", endpoint=endpoint)))
    key = uuid4().hex
    store.write(f"{key}/a", b"1")
    assert list(store.list(key)) == [f"{key}/a"]
    assert f"{key}/a" in store.list()
    store.delete(f"{key}/a")


def test_case_and_a_key_below_an_object(store: RemoteStore) -> None:
    for key in ("A", "a", "a/b"):
        store.write(key, key.encode())
    assert list(store.list()) == ["A", "a", "a/b"]
    assert store.read("a") == b"a"
    assert list(store.list("a")) == ["a", "a/b"]


def test_more_keys_than_fit_a_page(store: RemoteStore) -> None:
    names = [f"many/{n:04}" for n in range(1005)]
    for name in names:
        store.write(name, b"")
    store.write("man", b"")
    assert list(store.list("many")) == names
    assert list(store.list("many/0")) == []
    assert list(store.list("man")) == ["man"]
    store.write("m/a", b"")
    store.write("m", b"")
    assert list(store.list("m")) == ["m", "m/a"]
    assert list(store.list()) == ["m", "m/a", "man", *names]


def test_what_people_leave_in_the_bucket_is_no_key(store: RemoteStore, tmp_path: Path) -> None:
    assert isinstance(store.objects, S3Objects)
    store.put("k", write(tmp_path / "in", {"a": b"1"}))
    for path in ("My notes.txt", "folder/", ".tmp/x", "half@/9f/model.onnx"):
        store.objects.write(path, b"")
    assert list(store.list()) == ["k"]
    assert list(store.list("half")) == []


def test_two_processes_put_one_object(store: RemoteStore, endpoint: str, url: str) -> None:
    script = """
import sys
from evergreen.backends.store.remote.s3 import S3Objects, S3Options
objects = S3Objects(S3Options(url=sys.argv[1], endpoint=sys.argv[2]))
assert objects.exclusive
print("ready", flush=True)
sys.stdin.readline()
print([n for n in range(60) if objects.create(f"race/{n}", sys.argv[3].encode())])
"""
    racers = [
        subprocess.Popen([sys.executable, "-c", script, url, endpoint, name], stdin=-1, stdout=-1, text=True)
        for name in "ab"
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [json.loads(racer.communicate()[0]) for racer in racers]
    assert sorted(won[0] + won[1]) == list(range(60))
    assert all(store.read(f"race/{n}") == b"a" for n in won[0])


UPLOADER = """
import sys
from pathlib import Path
from evergreen.backends.store.remote.objects import RemoteStore
from evergreen.backends.store.remote.s3 import S3Objects, S3Options
store = RemoteStore(S3Objects(S3Options(url=sys.argv[1], endpoint=sys.argv[2]), part=int(sys.argv[3])))
store.put("models/big", Path(sys.argv[4]), lambda done, total: print(done, flush=True))
"""


@pytest.mark.parametrize("count", [9, pytest.param(205, marks=pytest.mark.slow)], ids=["small", "a GiB"])
def test_an_upload_whose_process_was_killed_goes_on_where_it_stopped(
    faulty: FaultyS3, url: str, tmp_path: Path, count: int
) -> None:
    size = (count - 1) * PART + 1000
    folder = write(tmp_path / "in", {"a.bin": os.urandom(MIB), "big.bin": os.urandom(size)})
    command = [sys.executable, "-c", UPLOADER, url, faulty.url, str(PART), str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    while int(child.stdout.readline()) < MIB + count // 3 * PART:
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    time.sleep(0.2)  # what it had sent before it died may still be on its way through the server
    first, parts = faulty.sent, list(faulty.parts)
    assert MIB + count // 3 * PART <= first < MIB + size
    told: list[int] = []
    store = through(faulty, url)
    assert list(store.list()) == []
    store.put("models/big", folder, lambda done, _: told.append(done))
    assert parts + faulty.parts[len(parts) :] == list(range(1, count + 1)), "no part was sent twice, none left out"
    assert faulty.sent - first - (MIB + size - first) < 1000, "besides what was missing only the manifest was sent"
    assert told[-1] == MIB + size
    store.get("models/big", tmp_path / "out")
    assert files(tmp_path / "out") == files(folder)


def test_a_part_that_differs_is_sent_again(faulty: FaultyS3, url: str, tmp_path: Path) -> None:
    store = through(faulty, url)
    assert isinstance(store.objects, S3Objects)
    data = os.urandom(3 * PART)
    file = tmp_path / "file"
    file.write_bytes(bytes(PART) + data[PART:])
    faulty.faults.append(Fault("partNumber=3", reply=refusal(403, "AccessDenied")))
    with pytest.raises(ConfigError):
        store.objects.upload("x", file, lambda _: None)
    file.write_bytes(data)
    faulty.parts.clear()
    store.objects.upload("x", file, lambda _: None)
    assert faulty.parts == [1, 3]
    assert store.objects.read("x") == data


@pytest.mark.parametrize("fault", [Fault("uploadId", lose=True, skip=2), Fault("uploadId", cut=1000, skip=1)])
def test_an_upload_survives_lost_answers(faulty: FaultyS3, url: str, tmp_path: Path, fault: Fault) -> None:
    folder = write(tmp_path / "in", {"big": os.urandom(2 * PART)})  # two parts, then complete
    faulty.faults.append(fault)
    store = through(faulty, url)
    store.put("k", folder)
    assert not faulty.faults
    store.get("k", tmp_path / "out")
    assert files(tmp_path / "out") == files(folder)


def test_two_uploads_of_one_file_at_once_both_come_through(faulty: FaultyS3, url: str, tmp_path: Path) -> None:
    """The second finds the first one's upload, finishes it, and the first finds it finished."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3 * PART))
    first, second = (through(faulty, url).objects for _ in range(2))

    def meanwhile(done: int) -> None:
        if done == PART:
            second.upload("x", file, lambda _: None)

    first.upload("x", file, meanwhile)
    assert first.read("x") == file.read_bytes()
    assert isinstance(first, S3Objects)
    assert list(first._begun("x")) == [], "nothing under way is left that somebody pays for"


def test_a_download_goes_on_where_it_broke(faulty: FaultyS3, url: str, tmp_path: Path) -> None:
    store = through(faulty, url)
    data = os.urandom(3 * MIB)
    store.put("k", write(tmp_path / "in", {"big": data}))
    faulty.faults += [Fault("/big", cut_reply=MIB) for _ in range(12)]
    faulty.faults += [Fault("/big", cut_reply=MIB - 1)]
    told: list[int] = []
    store.get("k", tmp_path / "out", lambda done, _: told.append(done))
    assert files(tmp_path / "out") == {"big": data}
    assert told == sorted(told)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(reply=Reply(429, b"", "text/plain", {"Retry-After": "3"})),
        Fault(reply=refusal(503, "SlowDown")),
        Fault(reply=Reply(500, b"<html>", "text/html")),
        Fault(reply=Reply(502, b"<html>", "text/html")),
        Fault(cut=0),
        Fault(lose=True),
        Fault(cut_reply=1),
        Fault(reply=refusal(409, "ConditionalRequestConflict")),
        Fault(reply=refusal(400, "RequestTimeout")),
    ],
    ids=str,
)
def test_what_passes_is_waited_out(faulty: FaultyS3, url: str, tmp_path: Path, fault: Fault) -> None:
    waited: list[float] = []
    store = RemoteStore(S3Objects(S3Options(url=url, endpoint=faulty.url), sleep=waited.append))
    assert store.exclusive

    def meet() -> None:
        faulty.faults.append(Fault(reply=fault.reply, lose=fault.lose, cut=fault.cut, cut_reply=fault.cut_reply))

    for step, expected in (
        (lambda: store.put_new("a", b"mine"), True),
        (lambda: store.put_new("a", b"mine too"), False),
        (lambda: store.write("b", b"2"), None),
        (lambda: store.read("b"), b"2"),
        (store.list, ["a", "b"]),
        (lambda: store.put("k", write(tmp_path / "in", {})), {}),
        (lambda: store.delete("b"), None),
    ):
        meet()
        waited.clear()
        assert step() == expected
        assert not faulty.faults
        assert len(waited) <= 2  # a connection that broke after the answer is noticed by the next request
        if fault.reply and "Retry-After" in fault.reply.headers:
            assert waited == [3.0]
    assert store.read("a") == b"mine"


def test_who_stays_busy_is_given_up(faulty: FaultyS3, url: str) -> None:
    waited: list[float] = []
    store = RemoteStore(S3Objects(S3Options(url=url, endpoint=faulty.url), sleep=waited.append))
    faulty.faults.append(Fault(times=100, reply=refusal(503, "SlowDown")))
    with pytest.raises(Unavailable, match="503 SlowDown"):
        store.read("a")
    assert len(waited) == 7
    assert waited[0] < waited[-1] <= 20


def test_who_does_not_answer(url: str) -> None:
    store = RemoteStore(S3Objects(S3Options(url=url, endpoint="http://127.0.0.1:9"), sleep=lambda _: None))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9 does not answer"):
        store.read("a")


def test_a_server_that_lies_is_found_out(faulty: FaultyS3, url: str, store: RemoteStore) -> None:
    faulty.lies = True
    lied_to = through(faulty, url)
    assert not lied_to.exclusive
    assert store.exclusive
    assert lied_to.put_new("a", b"1")
    assert not lied_to.put_new("a", b"2")
    assert lied_to.read("a") == b"1"
    assert list(lied_to.list()) == ["a"], "the probe leaves nothing"


def test_a_server_that_knows_no_conditions(faulty: FaultyS3, url: str) -> None:
    faulty.faults.append(Fault("PUT", reply=refusal(501, "NotImplemented")))
    store = through(faulty, url)
    assert not store.exclusive
    assert store.put_new("a", b"1")


USES: list[Callable[[RemoteStore], object]] = [
    lambda store: store.read("a"),
    lambda store: store.write("a", b""),
    lambda store: store.put_new("a", b""),
    lambda store: store.list(),
    lambda store: store.exclusive,
]


@pytest.mark.parametrize("use", USES)
def test_wrong_credentials_are_named_not_shown(
    faulty: FaultyS3, url: str, monkeypatch: pytest.MonkeyPatch, use: Callable[[RemoteStore], object]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    faulty.wrong_key = True
    with pytest.raises(ConfigError) as caught:
        use(through(faulty, url))
    assert "AWS_SECRET_ACCESS_KEY" in told(caught.value)
    assert "very-secret" not in told(caught.value)


@pytest.mark.parametrize("use", USES)
def test_no_credentials(endpoint: str, url: str, monkeypatch: pytest.MonkeyPatch, use: Callable[..., object]) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        use(RemoteStore(S3Objects(S3Options(url=url, endpoint=endpoint))))


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (refusal(404, "NoSuchBucket"), 'there is no bucket "evergreen"'),
        (refusal(400, "AuthorizationHeaderMalformed"), "AWS_REGION"),
        (refusal(403, "RequestTimeTooSkewed"), "clock"),
        (refusal(403, "AccessDenied"), "AWS_ACCESS_KEY_ID"),
    ],
)
def test_settings_that_are_wrong(faulty: FaultyS3, url: str, reply: Reply, says: str) -> None:
    faulty.faults.append(Fault("GET", times=50, reply=reply))
    with pytest.raises(ConfigError) as caught:
        through(faulty, url).read("a")
    assert says in told(caught.value)


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "http://bucket/x", "bucket", "s3://b/x?y=1"])
def test_what_is_no_place(url: str) -> None:
    with pytest.raises(ConfigError, match="no place in S3") as caught:
        S3Objects(S3Options(url=url))
    assert caught.value.field == "url"


def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="not well-formed"):
        RemoteStore(S3Objects(S3Options(url=url, endpoint="nonsense"))).read("a")


def test_a_changed_byte_is_found_and_named(store: RemoteStore, tmp_path: Path) -> None:
    assert isinstance(store.objects, S3Objects)
    store.put("k", write(tmp_path / "in", {"a.bin": b"1234", "b.bin": b"5678"}))
    (path,) = (path for path in store.objects.paths("k@") if path.endswith("b.bin"))
    store.objects.write(path, b"5679")
    with pytest.raises(Corrupt, match=r"b\.bin"):
        store.get("k", tmp_path / "out")
    store.objects.remove(path)
    with pytest.raises(Corrupt, match=r"lost its file b\.bin"):
        store.get("k", tmp_path / "out")
    store.objects.write("k@/manifest.json", b"{")
    with pytest.raises(Corrupt, match="manifest"):
        store.get("k", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_nothing_is_lost_while_requests_fail_at_random(faulty: FaultyS3, url: str, tmp_path: Path) -> None:
    faulty.fault_rate = 0.15
    store = through(faulty, url)
    for n in range(60):
        assert store.put_new(f"once/{n}", b"%d" % n)
        store.write("over", b"%d" % n)
        assert store.read("over") == b"%d" % n
        if n % 10 == 0:
            store.put(f"folders/{n}", write(tmp_path / f"in/{n}", {"a": b"%d" % n, "b": b"0" * n}))
        assert len(store.list("once")) == n + 1
    for n in range(0, 60, 10):
        store.get(f"folders/{n}", tmp_path / "out" / str(n))
    assert files(tmp_path / "in") == files(tmp_path / "out")


def told(e: EvergreenError) -> str:
    return f"{e} {e.hint}"
