"""Several processes on one port: they swap together, start again when they die, and one of them turns the loops."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from http_harness import PLAIN, Process, learn, wait, write
from prometheus_client.parser import text_string_to_metric_families

import evergreen
from evergreen import engine
from evergreen.core.records import Model, Run

Launch = Callable[..., Process]


class Heard(NamedTuple):
    """One answer; times are of the monotonic clock."""

    sent: float
    done: float
    status: int
    version: int
    generation: int


Swap = tuple[int, float, float]  #: version, asked, done


class Callers:
    """Threads that ask, each on connections of its own."""

    def __init__(self, url: str, number: int = 4) -> None:
        self.url = url
        self.heard: list[Heard] = []
        self.broken: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(number)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            with httpx.Client(base_url=self.url, timeout=30) as http:  # anew: so that each meets every process
                for _ in range(20):
                    sent = time.monotonic()
                    try:
                        said = http.post("/api/toy/predict", json={"input": 1})
                    except httpx.HTTPError as e:
                        self.broken.append(repr(e))
                        break
                    mark = [int(said.headers.get(f"x-model-{name}", 0)) for name in ("version", "generation")]
                    self.heard.append(Heard(sent, time.monotonic(), said.status_code, *mark))
                    self._stop.wait(0.004)  # the servers need the processor, too


def children(server: Process) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # also one that has ended and is not buried yet
            found += [process] if "evergreen.http.process" in process.cmdline() else []
    return found


def swapped(server: Process, versions: Sequence[int], times: int) -> tuple[list[Heard], list[str], list[Swap]]:
    """Promote by turns under load; return what was heard, and (version, asked, done) of every promotion."""
    swaps = []
    with httpx.Client(base_url=server.url, timeout=60) as http, Callers(server.url) as callers:
        for n in range(times):
            version, asked = versions[n % len(versions)], time.monotonic()
            said = http.post("/api/toy/promote", json={"version": version, "why": "a test", "force": True})
            assert said.status_code == 200, said.text
            swaps.append((version, asked, time.monotonic()))
            time.sleep(0.05)  # time to hear the new one
    return callers.heard, callers.broken, swaps


def check(heard: Sequence[Heard], swaps: Sequence[Swap]) -> int:
    """Check that nobody heard another version after "done"; return how many answers were sent between two swaps."""
    between = 0
    ends = [asked for _, asked, _ in swaps[1:]] + [float("inf")]
    for (version, _, done), end in zip(swaps, ends, strict=True):
        said = [h.version for h in heard if h.sent >= done and h.done <= end]
        between += len(said)
        assert set(said) <= {version}
    of = {h.generation: h.version for h in heard}
    assert all(of[h.generation] == h.version for h in heard)  # a generation is one line-up, in every process
    return between


def told(server: Process, name: str, **labels: str) -> float:
    """Ask one of the processes, on a connection of its own, for a figure."""
    said = httpx.get(f"{server.url}/metrics").text
    samples = [sample for family in text_string_to_metric_families(said) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


def two_marks(server: Process) -> list[int]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        return [learn(http, "first"), learn(http, "second")]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_all_change_version_together(launch: Launch, request: pytest.FixtureRequest, database: str) -> None:
    env = {"EVERGREEN_LEDGER": fresh(request.getfixturevalue("postgresql"))} if database == "postgresql" else {}
    server = launch(processes=2, env=env)
    heard, broken, swaps = swapped(server, two_marks(server), 12)
    assert not broken
    assert {h.status for h in heard} == {200}
    check(heard, swaps)


@pytest.mark.slow
def test_two_hundred_promotions_under_load(launch: Launch, postgresql: str) -> None:
    server = launch(processes=2, env={"EVERGREEN_LEDGER": fresh(postgresql)})
    heard, broken, swaps = swapped(server, two_marks(server), 200)
    assert not broken
    assert Counter(h.status for h in heard).keys() == {200}
    assert check(heard, swaps) > 500


def test_a_promotion_past_the_server_is_followed(launch: Launch) -> None:
    server = launch(processes=2)
    first, second = two_marks(server)
    project = evergreen.open(server.folder / "evergreen.toml")
    with closing(project.ledger):
        engine.promote(project["toy"], first, by="test", why="past the server", force=True)

    def all_swapped() -> bool:
        with_each = []
        for _ in range(16):  # each on a connection of its own: some meet the one process, some the other
            said = httpx.post(f"{server.url}/api/toy/predict", json={"input": 1})
            with_each.append(said.headers["x-model-version"])
        return set(with_each) == {str(first)}

    assert second != first
    wait(all_swapped)


def test_a_process_that_dies_is_started_again_and_a_promotion_does_not_wait_for_it(launch: Launch) -> None:
    server = launch(processes=2)
    versions = two_marks(server)
    for _ in range(2):  # whichever turns the loops, the other goes on
        before = {p.pid for p in children(server)}
        victim = children(server)[0]
        victim.kill()
        with httpx.Client(base_url=server.url, timeout=60, transport=httpx.HTTPTransport(retries=3)) as http:
            body = {"version": versions[0], "why": "a test", "force": True}
            wait(lambda http=http, body=body: http.post("/api/toy/promote", json=body).status_code == 200)
        versions.reverse()
        wait(lambda before=before: len({p.pid for p in children(server)} - before) == 1)
        wait(lambda: len(children(server)) == 2)
    wait(lambda: httpx.get(f"{server.url}/health").status_code == 200)
    assert server.end()[0] == 0


def test_when_the_one_that_turns_the_loops_is_killed_another_does(launch: Launch) -> None:
    server = launch(processes=2)
    with httpx.Client(base_url=server.url, timeout=60) as http:
        learn(http, "first")
    with closing(evergreen.open(server.folder / "evergreen.toml").ledger) as ledger:
        for turn in range(3):
            holder = wait(lambda: held(server.folder))
            assert int(holder.split(":")[1]) in {p.pid for p in children(server)}
            os.kill(int(holder.split(":")[1]), signal.SIGKILL)
            ask(server, f"after death {turn}")
            wait(lambda before=holder: held(server.folder) not in ("", before))
            wait(lambda n=turn + 2: len(ledger.find(Model, "toy")) == n)
        runs = ledger.find(Run, "toy")
    assert len(runs) == 4  # nothing was done twice


def test_figures_are_summed_over_all_and_those_of_the_dead_stay(launch: Launch) -> None:
    server = launch(processes=2)
    with httpx.Client(base_url=server.url, timeout=60) as http:
        learn(http, "first")
    for _ in range(40):
        assert httpx.post(f"{server.url}/api/toy/predict", json={"input": 1}).status_code == 200
    wait(lambda: told(server, "evergreen_predict_seconds_count", loop="toy") == 40)
    children(server)[0].kill()


def test_several_end_in_order_and_take_their_names_off_the_roster(launch: Launch) -> None:
    server = launch(processes=3)
    assert json.loads((server.folder / ".evergreen" / "server.json").read_text()) == {
        "pid": server.process.pid,
        "url": server.url,
    }
    pids = [p.pid for p in children(server)]
    assert len(pids) == 3
    assert server.end()[0] == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not (server.folder / ".evergreen" / "server.json").exists()
    with closing(evergreen.open(server.folder / "evergreen.toml").ledger) as ledger:
        assert (
            ledger.recall_all("server") == ledger.recall_all("promotion") == ledger.recall_all("server expected") == {}
        )


def test_when_the_parent_is_killed_the_others_end(launch: Launch) -> None:
    server = launch(processes=2)
    processes = children(server)
    server.end(9)
    wait(lambda: not any(p.is_running() for p in processes))


def test_a_ledger_that_every_process_has_to_itself_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "project", '[ledger]\nuse = "memory"\n' + PLAIN)
    server = Process(tmp_path / "project", processes=2)
    code, said = server.end()
    assert code != 0
    assert "not shared between processes" in said


def ask(server: Process, label: str) -> None:
    """Ask for a training, of whichever process lives."""
    body = {"force": True, "overrides": {"mark": label}}

    def asked() -> bool:
        try:
            return httpx.post(f"{server.url}/api/toy/train", json=body, timeout=30).status_code in (202, 409)
        except httpx.HTTPError:
            return False

    wait(asked)


def held(folder: Path) -> str:
    """Return who holds the right to turn the loop."""
    import sqlite3

    with closing(sqlite3.connect(folder / ".evergreen" / "ledger.db")) as db:
        row: Any = db.execute("SELECT holder FROM leases WHERE name = 'tick/toy'").fetchone()
    return str(row[0]) if row else ""


def fresh(url: str) -> str:
    """Make an empty database beside the others, and return its address."""
    from uuid import uuid4

    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url

    name, at = f"p{uuid4().hex}", make_url(url).set(drivername="postgresql+psycopg")
    admin = create_engine(at, isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return at.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
