"""Models from devices, through the doors: received, known again, scored, refused; and a server that serves on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import corpus_onnx  # noqa: F401 - fills the registry
import corpus_onnx_graphs  # noqa: F401 - the same
import httpx
import pytest
from corpus import CORPUS
from models import GOOD, forest, linear

import evergreen
from evergreen import engine
from evergreen.cli import main
from evergreen.core.errors import InvalidInput, TooLarge
from evergreen.core.records import Event, Upload
from evergreen.core.states import UploadState
from evergreen.stages import collect

TOML = """
[http]
port = 0
[loops.l]
recipe = { use = "takers:Taker" }
runner = { use = "inline" }
collect = { consent = false, max_upload = 1000000, upload_time = "20s" }
trigger.auto = false
"""
HERE = Path(__file__).parent


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "evergreen.toml").write_text(TOML)
    return tmp_path / "home"


@pytest.fixture
def loop(home: Path) -> Iterator[Any]:
    project = evergreen.open(home / "evergreen.toml")
    yield project.loop("l")
    project.ledger.close()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "mine.onnx").write_bytes(linear().SerializeToString())
    return tmp_path / "mine.onnx"


def left(home: Path) -> list[str]:
    """What lies in the work folder and in the store."""
    state = home / ".evergreen"
    return [str(p.relative_to(state)) for p in state.rglob("*") if "upload" in p.name and p.name != "uploads"]


def test_a_model_is_received_and_waits(loop: Any, good: Path) -> None:
    taken = engine.receive(
        loop, good, name="../../etc/My phone.onnx", subject="p1", description="mine", about={"device": "d"}
    )
    assert (taken.state, taken.name, taken.format) == (UploadState.PENDING, "My phone.onnx", "onnx")
    assert (taken.subject, taken.description, taken.details["about"]) == ("p1", "mine", {"device": "d"})
    assert taken.key == f"uploads/l/{taken.sha256[:32]}"
    assert "seccomp" in taken.details["lockdown"] or sys.platform != "linux"
    loop.store.get(taken.key, good.parent / "kept")
    kept = sorted(str(p.relative_to(good.parent / "kept")) for p in (good.parent / "kept").rglob("*") if p.is_file())
    assert kept == ["model/interface.json", "model/model.onnx", "original/My phone.onnx"]
    assert not left(loop.home)


def test_the_same_file_twice_is_one_upload(loop: Any, good: Path) -> None:
    first = engine.receive(loop, good, name="a.onnx")
    assert engine.receive(loop, good, name="b.onnx", description="again") == first
    assert len(collect.received(loop)) == 1


def test_sent_at_the_same_time_it_is_one_upload(loop: Any, good: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(engine.receive, loop, good, name="a.onnx") for _ in range(2)]
        assert len({s.result().id for s in sent}) == 1
    loop.store.get(collect.received(loop)[0].key, good.parent / "kept")


def test_what_was_stored_before_a_crash_does_not_stand_in_the_way(loop: Any, good: Path) -> None:
    digest = collect.uploads._sha256(good)
    (good.parent / "half").mkdir()
    (good.parent / "half" / "other").write_text("left by a process that was killed")
    loop.store.put(f"uploads/l/{digest[:32]}", good.parent / "half")
    assert engine.receive(loop, good, name="a.onnx").state is UploadState.PENDING


def test_it_is_scored_on_the_holdout(loop: Any, good: Path) -> None:
    rows = [{"id": str(i), "input": [i / 60, 0, 0, 1], "label": "on"} for i in range(60)]
    loop.ledger.append("l", [collect.admit(loop, row, origin="t") for row in rows])
    engine.ask(loop, by="t", why="t", force=True)
    engine.tick(loop)
    taken = engine.receive(loop, good, name="a.onnx")
    assert 0 <= taken.scores["accuracy"] <= 1
    assert taken.details["ms_per_answer"] > 0


@pytest.mark.parametrize(
    ("name", "data", "error", "says"),
    [
        ("a.pkl", b"x", InvalidInput, "no kind that is known"),
        ("a.onnx.exe", b"x", InvalidInput, "no kind that is known"),
        ("a", b"x", InvalidInput, "no kind that is known"),
        ("a.onnx", b"", InvalidInput, "empty"),
        ("a.onnx", b"\0" * 1_000_001, TooLarge, "bytes"),
        ("a.onnx", b"nonsense", InvalidInput, "damaged|no ONNX|cut off"),
    ],
)
def test_what_is_refused_leaves_a_line_of_history_and_nothing_else(
    loop: Any, tmp_path: Path, name: str, data: bytes, error: type[Exception], says: str
) -> None:
    (tmp_path / "sent").write_bytes(data)
    with pytest.raises(error, match=says):
        engine.receive(loop, tmp_path / "sent", name=name)
    (event,) = loop.ledger.find(Event, "l")
    assert event.what == "upload refused"
    assert re.search(says, event.because)
    assert not collect.received(loop)
    assert not left(loop.home)
    assert not loop.store.list("uploads")


def test_a_symlink_is_not_followed(loop: Any, good: Path) -> None:
    (good.parent / "link.onnx").symlink_to(good)
    with pytest.raises(InvalidInput, match="not a file"):
        engine.receive(loop, good.parent / "link.onnx", name="a.onnx")


def test_from_the_shell(home: Path, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--config", str(home / "evergreen.toml")]
    assert main(["upload", "l", str(good), "-d", "mine", *where]) == 0
    assert "pending (3 labels" in capsys.readouterr().out
    assert main(["uploads", "l", *where]) == 0
    assert "waits for the next training" in capsys.readouterr().out
    assert main(["uploads", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "pending"
    (good.parent / "bad.onnx").write_bytes(b"nonsense")
    assert main(["upload", str(good.parent / "bad.onnx"), *where]) == 1


class Up:
    """`evergreen up`, as people start it."""

    def __init__(self, home: Path) -> None:
        env = {**os.environ, "PYTHONPATH": str(HERE), "SECRET_OF_THE_SERVER": "hush"}
        command = [sys.executable, "-m", "evergreen", "up", "--config", str(home / "evergreen.toml")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        said, end = home / ".evergreen" / "server.json", time.monotonic() + 30
        while not said.exists() and time.monotonic() < end:
            time.sleep(0.05)
        self.http = httpx.Client(base_url=json.loads(said.read_text())["url"], timeout=60)

    def send(self, file: Path, name: str = "model.onnx", **fields: str) -> httpx.Response:
        with file.open("rb") as data:
            return self.http.post("/api/l/uploads", files={"model": (name, data)}, data=fields)


@pytest.fixture
def up(home: Path) -> Iterator[Up]:
    served = Up(home)
    yield served
    served.http.close()
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0


SAMPLE = ("a_zip_bomb", "nested_ten_thousand_deep", "memory_eaten_step_by_step", "nan", "an_endless_loop", "expanded")


def test_a_server_is_unharmed_by_hostile_files_and_serves_on(up: Up, good: Path, home: Path) -> None:
    pid = up.process.pid
    for name in SAMPLE:
        folder = good.parent / name
        folder.mkdir()
        answer = up.send(CORPUS[f"{name}.onnx"].file(folder))
        assert answer.status_code in (400, 413), answer.text
        error = answer.json()["error"]
        assert error["code"] in ("invalid_input", "too_large")
        assert error["message"]
    assert up.http.get("/health").json()["status"] == "ok"
    answer = up.send(good, "phone.onnx", description="mine", subject="p1")
    assert answer.status_code == 200, answer.text
    listed = up.http.get("/api/l/uploads").json()["uploads"]
    assert [(u["name"], u["state"], u["description"]) for u in listed] == [("phone.onnx", "pending", "mine")]
    history = up.http.get("/api/l/history").json()["events"]
    assert sum(e["what"] == "upload refused" for e in history) >= 4
    assert up.process.poll() is None
    assert up.process.pid == pid
    assert not left(home)


def test_forms_that_are_none(up: Up, good: Path) -> None:
    http, path = up.http, "/api/l/uploads"
    for body in (
        {"json": {}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"--b\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        {"data": {"model": "no file"}},
        {"files": {"other": ("a.onnx", b"x")}},
        {"files": {"model": ("a.onnx", b"x")}, "data": {"description": "x" * 100_000}},
        {"files": [("model", ("a.onnx", b"x"))] * 2},
    ):
        answer = http.post(path, **body)  # type: ignore[arg-type]
        assert answer.status_code in (400, 413), answer.text
        assert answer.json()["error"]["message"]
    assert http.post("/api/none/uploads", files={"model": ("a.onnx", b"x")}).status_code == 404


def test_more_than_can_wait_are_sent_away(up: Up, good: Path) -> None:
    bodies = []
    for i in range(12):
        made = forest(nodes_values=[i / 100, 0.0, 0.0])
        (good.parent / f"{i}.onnx").write_bytes(made.SerializeToString())
        bodies.append(good.parent / f"{i}.onnx")
    with ThreadPoolExecutor(12) as pool:
        codes = list(pool.map(lambda file: up.send(file).status_code, bodies))
    assert set(codes) == {200, 503}
    assert len(up.http.get("/api/l/uploads").json()["uploads"]) == codes.count(200)


def test_every_good_form_of_model_is_received(loop: Any, tmp_path: Path) -> None:
    for name, make in GOOD.items():
        (tmp_path / "m.onnx").write_bytes(make().SerializeToString())
        assert engine.receive(loop, tmp_path / "m.onnx", name=f"{name}.onnx").state is UploadState.PENDING
    assert len(loop.ledger.find(Upload, "l")) == len(GOOD)
