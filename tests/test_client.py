"""The client against a real server that is killed and comes back: nothing is lost, nothing counts twice, order is kept."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from evergreen.client import Client, Spool, error_of
from evergreen.core.errors import Conflict, InvalidInput, NotFound, Overloaded, Unauthorized, Unavailable

#: A server in 40 lines: appends what it is sent to a file, before it answers.
SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
port, log = int(sys.argv[1]), sys.argv[2]

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args): pass

    def reply(self, status, said):
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def error(self, status, code, message, field=None):
        self.reply(status, {"error": {"code": code, "message": message, "field": field, "hint": None}})

    def do_GET(self):
        self.reply(200, {"status": "ok"}) if self.path == "/health" else self.error(404, "not_found", "no such loop", "loop")

    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") == "Bearer wrong":
            return self.error(401, "unauthorized", "a key is needed")
        if self.path.endswith("/predict"):
            return self.reply(200, {"id": "p1", "output": said["input"] * 2, "model": {"version": 1}})
        rows = said.get("samples", [said])
        if any(row.get("bad") for row in rows):
            return self.error(400, "invalid_input", "bad is not allowed", "bad")
        with open(log, "a") as out:
            for row in rows:
                out.write(json.dumps({"path": self.path, **row}) + "\\n")
        self.reply(200, {"accepted": len(rows)})

ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Server:
    """Starts and kills the server above, always on the same port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = folder / "received.jsonl"
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, str(self.port), str(self.log)])
        until(self.answers)

    def answers(self) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def received(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


def client(server: Server, spool: Path | None, **more: Any) -> Client:
    return Client(server.url, spool=spool, first_wait=0.02, longest_wait=0.1, **more)


def test_predictions_and_errors_come_through(server: Server) -> None:
    server.start()
    with client(server, None) as c:
        assert c.predict("x", 21)["output"] == 42
        assert c.health() == {"status": "ok"}
        with pytest.raises(NotFound) as caught:
            c.status("y")
        assert caught.value.field == "loop"
        with pytest.raises(InvalidInput):
            c.sample("x", {"bad": 1})


def test_without_a_spool_an_absent_server_is_an_error(server: Server) -> None:
    with client(server, None) as c, pytest.raises(Unavailable):
        c.sample("x", {"input": 1})


def test_what_is_given_while_the_server_is_away_arrives_in_order_once_it_is_back(
    server: Server, tmp_path: Path
) -> None:
    with client(server, tmp_path / "spool") as c:
        ids = [c.sample("x", {"input": i}) for i in range(300)]
        c.feedback("x", ids[0], "yes")
        ids += [c.sample("x", {"input": i}) for i in range(300, 320)]
        assert c.waiting == 321
        server.start()
        until(lambda: c.waiting == 0)
    got = server.received()
    assert [g["id"] for g in got] == [*ids[:300], ids[0], *ids[300:]]
    assert got[300]["path"] == "/api/x/feedback"


def test_a_server_that_dies_again_and_again_loses_nothing(server: Server, tmp_path: Path) -> None:
    given_ids: list[str] = []
    with client(server, tmp_path / "spool") as c:
        for turn in range(3):
            server.start()
            given_ids += [c.sample("x", {"input": (turn, i)}) for i in range(20)]
            server.kill()
            given_ids += [c.sample("x", {"input": (turn, i)}) for i in range(20, 40)]
        server.start()
        until(lambda: c.waiting == 0)
    got = [g["id"] for g in server.received()]
    assert set(got) == set(given_ids)
    assert list(dict.fromkeys(got)) == given_ids  # twice is possible, with the same id; order is kept


def test_the_next_process_sends_what_the_last_one_left(server: Server, tmp_path: Path) -> None:
    with client(server, tmp_path / "spool", background=False) as c:
        ids = [c.sample("x", {"input": i}) for i in range(5)]
    with (tmp_path / "spool" / "00000001.jsonl").open("ab") as torn:
        torn.write(b'{"path": "/api/x/sam')  # killed in the middle of a write
    server.start()
    with client(server, tmp_path / "spool", background=False) as c:
        assert c.waiting == 5
        ids.append(c.sample("x", {"input": 5}))  # others wait: it queues up behind them
        assert c.flush().sent == 6
    assert [g["id"] for g in server.received()] == ids


def test_what_the_server_refuses_is_put_aside_and_the_rest_goes_on(server: Server, tmp_path: Path) -> None:
    with client(server, tmp_path / "spool", background=False) as c:
        for i in range(6):
            c.sample("x", {"input": i, "bad": i == 3})
        server.start()
        done = c.flush()
    assert (done.sent, done.refused, done.left) == (5, 1, 0)
    assert [g["input"] for g in server.received()] == [0, 1, 2, 4, 5]
    (refused,) = (tmp_path / "spool" / "refused.txt").read_text().splitlines()
    assert json.loads(refused)["why"].startswith("invalid_input: bad is not allowed")


def test_a_wrong_key_loses_nothing(server: Server, tmp_path: Path) -> None:
    with Client(server.url, "wrong", tmp_path / "spool", background=False) as c:
        c.sample("x", {"input": 1})
        server.start()
        with pytest.raises(Unauthorized):
            c.flush()
        assert c.waiting == 1


def test_many_threads_at_once(server: Server, tmp_path: Path) -> None:
    with client(server, tmp_path / "spool") as c:
        threads = [threading.Thread(target=lambda: [c.sample("x", {"input": i}) for i in range(25)]) for _ in range(4)]
        for t in threads:
            t.start()
        server.start()
        for t in threads:
            t.join()
        until(lambda: c.waiting == 0)
    assert len({g["id"] for g in server.received()}) == 100


def test_the_spool_is_bounded_and_held_by_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most=100)
    spool.put({"a": "x" * 60})
    with pytest.raises(Overloaded):
        spool.put({"a": "x" * 60})
    with pytest.raises(Conflict):
        Spool(tmp_path)
    spool.drop()
    spool.put({"a": "x" * 60})
    spool.close()


@pytest.mark.parametrize("status", [404, 429, 500, 502])
def test_an_answer_that_is_not_ours_means_try_again(status: int) -> None:
    assert isinstance(error_of(status, None), Unavailable)
    assert isinstance(error_of(status, {"detail": "proxy"}), Unavailable)


PROJECT = """
[http]
port = 0
[loops.toy]
recipe = { use = "evergreen.testing.runner:Majority" }
runner = { use = "inline" }
collect.consent = false
trigger.auto = false
gate.min_rows = 1
"""


def test_every_call_against_evergreen_itself(tmp_path: Path) -> None:
    (tmp_path / "evergreen.toml").write_text(PROJECT)
    command = [sys.executable, "-c", "from evergreen.cli import main; main()", "up"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            url = next(line.split()[-1] for line in process.stderr if line.startswith("Evergreen is up at"))
            with Client(url, spool=tmp_path / "spool") as c:
                for i in range(30):
                    c.sample("toy", {"input": i, "label": "yes"}, id=f"row-{i}")
                c.sample("toy", {"input": 0, "label": "yes"}, id="row-0")  # once more: not counted
                c.train("toy", force=True, why="because")
                until(lambda: c.health()["loops"]["toy"]["model_loaded"])
                answer = c.predict("toy", 7, unit="ann")
                assert (answer["output"], answer["model"]["version"]) == ("yes", 1)
                c.feedback("toy", answer["id"], "no")
                c.feedback("toy", answer["id"], "yes", score=2)
                c.outcome("toy", "ann", "no")
                c.outcome("toy", "ann", score=4)
                with Client(url) as stranger:
                    stranger.outcome("toy", "ann", score=5)
                    with pytest.raises(NotFound):
                        stranger.outcome("toy", "bob", score=5)
                assert c.status("toy")["samples"]["collected"] == 31
                (served,) = c._call("GET", "/api/toy/rollout")["in_service"]
                traffic = served["traffic"]
                assert [traffic[k] for k in ("judged", "right", "scored", "mean_score")] == [1, 0, 1, 5.0]
                assert [m["version"] for m in c.models("toy")] == [1]
                assert any(e["because"] == "because" for e in c.history("toy", limit=100))
                assert c.health()["status"] == "ok"
                with pytest.raises(InvalidInput):
                    c.sample("toy", {"label": "without input"})
                with pytest.raises(NotFound):
                    c.status("nope")
                assert c.waiting == 0
        finally:
            process.terminate()
            process.communicate(timeout=20)


def test_an_outcome_is_about_the_newest_that_was_asked_for_and_says_when_it_was_said(
    server: Server, tmp_path: Path
) -> None:
    server.start()
    with client(server, tmp_path / "spool", background=False) as c:
        c.predict("x", 1, session="s")
        c.predict("x", 1, unit="u")
        server.kill()
        for session in ("s", "u", "other"):
            c.outcome("x", session, score=1.5)
        c.outcome("x", "s", "yes")
        time.sleep(0.2)
        server.start()
        assert c.flush().sent == 4
        c.outcome("x", "other", "now")
    got = server.received()
    assert [(g.get("id"), g.get("session"), g["label"], g["score"]) for g in got] == [
        ("p1", None, None, 1.5),
        ("p1", None, None, 1.5),
        (None, "other", None, 1.5),
        ("p1", None, "yes", None),
        (None, "other", "now", None),
    ]
    assert 0.2 <= got[2]["ago"] < 60
    assert "ago" not in got[4]


@settings(max_examples=60, deadline=None)
@given(acts=st.lists(st.one_of(st.just("put"), st.integers(1, 4), st.just("reopen")), max_size=40))
def test_a_spool_is_a_queue_whatever_happens(acts: list[str | int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool, queue, n = Spool(folder, segment=40), list[int](), 0
    for act in acts:
        if act == "put":
            spool.put({"n": n})
            queue.append(n)
            n += 1
        elif act == "reopen":
            spool.close()
            spool = Spool(folder, segment=40)
        else:
            got = [r["n"] for r in spool.first(int(act))]
            assert got == queue[: len(got)]
            assert bool(got) == bool(queue)
            spool.drop(len(got))
            queue = queue[len(got) :]
        assert len(spool) == len(queue)
    spool.close()
