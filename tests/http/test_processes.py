"""Several processes on one port: they swap together, start again when they die, and one of them turns the loops."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
from evergreen.core.ports import Ledger
from evergreen.core.records import Model, Run
from evergreen.core.states import ModelState

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
    said = patiently(lambda: httpx.get(f"{server.url}/metrics", timeout=60)).text
    samples = [sample for family in text_string_to_metric_families(said) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


def two_marks(server: Process) -> list[int]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        return [learn(http, "first"), learn(http, "second")]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Two processes on SQLite that have learnt two marks; each test leaves two that live."""
    server = Process(write(tmp_path_factory.mktemp("pair"), PLAIN).parent, processes=2)
    try:
        two_marks(server)
        yield server
    finally:
        server.end(9)


def test_all_change_version_together(pair: Process) -> None:
    heard, broken, swaps = swapped(pair, [1, 2], 12)
    assert not broken
    assert {h.status for h in heard} == {200}
    check(heard, swaps)


def test_they_do_on_postgresql_too(launch: Launch, postgresql: str) -> None:
    server = launch(processes=2, env={"EVERGREEN_LEDGER": fresh(postgresql)})
    heard, broken, swaps = swapped(server, two_marks(server), 6)
    assert not broken
    assert {h.status for h in heard} == {200}
    check(heard, swaps)


def test_a_promotion_past_the_server_is_followed(pair: Process) -> None:
    project = evergreen.open(pair.folder / "evergreen.toml")
    with closing(project.ledger) as ledger:
        other = 3 - champion(ledger)
        engine.promote(project["toy"], other, by="test", why="past the server", force=True)
    in_a_row = 0

    def all_swapped() -> bool:
        nonlocal in_a_row  # each on a connection of its own: some meet the one process, some the other
        said = patiently(lambda: httpx.post(f"{pair.url}/api/toy/predict", json={"input": 1}, timeout=60))
        in_a_row = in_a_row + 1 if said.headers["x-model-version"] == str(other) else 0
        return in_a_row == 16

    wait(all_swapped, 60)


def test_figures_are_summed_over_all_and_those_of_the_dead_stay(pair: Process) -> None:
    def refused() -> float:
        return told(pair, "evergreen_requests_total", operation="predict", status="400")

    for _ in range(40):  # each on a connection of its own
        said = patiently(lambda: httpx.post(f"{pair.url}/api/toy/predict", json={"input": {"n": "x"}}, timeout=60))
        assert said.status_code == 400
    wait(lambda: refused() == 40, 60)
    before = {p.pid for p in children(pair)}
    trained = told(pair, "evergreen_events_total", kind="new champion")
    children(pair)[0].kill()
    while len({p.pid for p in children(pair)} - before) < 1:
        assert refused() == 40
    present(pair, 2)
    assert {refused() for _ in range(8)} == {40}
    assert {told(pair, "evergreen_events_total", kind="new champion") for _ in range(8)} == {trained}


def test_when_the_one_that_turns_the_loops_is_killed_another_does_and_it_is_started_again(pair: Process) -> None:
    with closing(evergreen.open(pair.folder / "evergreen.toml").ledger) as ledger:
        first = len(ledger.find(Model, "toy"))
        for turn in range(2):
            holder = wait(lambda: held(pair.folder), 60)
            before = {p.pid for p in children(pair)}
            victim = psutil.Process(int(holder.split(":")[1]))
            assert victim.pid in before
            victim.kill()
            wait(lambda of=victim: gone(of), 60)  # else it might take what it has no time to answer
            promoted = {"version": 1 + turn, "why": "nobody waits for the dead", "force": True}
            assert post(pair, "promote", promoted) in (200, 409)  # 409: it is champion
            assert post(pair, "train", {"force": True, "overrides": {"mark": f"after {turn}"}}) in (202, 409)
            wait(lambda before=holder: held(pair.folder) not in ("", before), 60)
            wait(lambda n=first + turn + 1: champion(ledger) == n, 60)
            wait(lambda before=before: len({p.pid for p in children(pair)} - before) == 1, 60)
            present(pair, 2)
        assert len(ledger.find(Run, "toy")) == first + 2  # nothing was done twice


def test_when_the_parent_is_killed_the_others_end_and_the_next_ones_take_over(pair: Process) -> None:
    processes = children(pair)
    pair.end(9)
    wait(lambda: not any(p.is_running() for p in processes), 60)
    again = Process(pair.folder, processes=2)
    note = pair.folder / ".evergreen" / "server.json"
    assert json.loads(note.read_text()) == {"pid": again.process.pid, "url": again.url}
    present(pair, 2)  # one that was killed while it began is taken off by those that come
    pids = [p.pid for p in children(again)]
    assert again.end()[0] == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not note.exists()
    assert on_the_roster(pair.folder) == 0


def test_a_ledger_that_every_process_has_to_itself_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "project", '[ledger]\nuse = "memory"\n' + PLAIN)
    server = Process(tmp_path / "project", processes=2)
    code, said = server.end()
    assert code != 0
    assert "not shared between processes" in said


@pytest.mark.slow
def test_two_hundred_promotions_under_load(launch: Launch, postgresql: str) -> None:
    server = launch(processes=2, env={"EVERGREEN_LEDGER": fresh(postgresql)})
    heard, broken, swaps = swapped(server, two_marks(server), 200)
    assert not broken
    assert Counter(h.status for h in heard).keys() == {200}
    assert check(heard, swaps) > 500


def patiently(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask again if whoever was asked has just been killed."""

    def said() -> httpx.Response | None:
        try:
            return ask()
        except httpx.TransportError:
            return None

    return wait(said, 120)


def post(server: Process, what: str, body: Any) -> int:
    """Send something to whichever process lives."""
    return patiently(lambda: httpx.post(f"{server.url}/api/toy/{what}", json=body, timeout=60)).status_code


def champion(ledger: Ledger) -> int:
    (found,) = ledger.find(Model, "toy", ModelState.CHAMPION)
    return found.version


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def present(server: Process, number: int) -> None:
    """Wait until so many processes are on the roster."""
    wait(lambda: on_the_roster(server.folder) == number, 120)


def on_the_roster(folder: Path) -> int:
    with closing(evergreen.open(folder / "evergreen.toml").ledger) as ledger:
        assert not ledger.recall_all("promotion")
        return len(ledger.recall_all("server"))


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
