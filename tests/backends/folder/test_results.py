"""What the app believes, how it stops a training, and that it may die between any two lines."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from folder_kit import KEYS, POLL_S, TICKET, Far, Killed, Mortal

from evergreen.core.config import Use
from evergreen.core.plugins import make
from evergreen.core.ports import Ledger, Store
from evergreen.core.records import Run
from evergreen.core.states import RunState
from evergreen.job.far import protocol
from evergreen.job.far.protocol import Ack, Control, Grant, Result

# --- What it believes -----------------------------------------------------------------------------------------


def test_a_result_counts_when_every_file_is_what_it_says(far: Far) -> None:
    grant = far.granted()
    result = far.model(grant)
    far.write(KEYS.result(grant.mark), result)
    done = far.look()
    assert (done.state, done.artifact, done.metrics) == ("done", grant.ticket.out, {"accuracy": 1.0})
    ack = far.read(KEYS.ack, Ack)
    assert (ack.mark, ack.state) == (grant.mark, "done")
    assert far.app().poll("r1-1") == done


@pytest.mark.parametrize("wrong", ["hash", "missing", "extra", "place", "evaluation", "none", "damaged"])
def test_a_result_with_a_wrong_file_is_never_accepted(far: Far, wrong: str) -> None:
    grant = far.granted()
    result = far.model(grant)
    files = dict(result.files)
    changed: dict[str, Any] = {
        "hash": {"files": dict.fromkeys(files, "0" * 64)},
        "missing": {"files": {**files, "more.txt": "0" * 64}},
        "extra": {"files": {}},
        "place": {"artifact": "models/l/of-another"},
        "evaluation": {"evaluation_files": dict.fromkeys(result.evaluation_files, "0" * 64)},
        "none": {"artifact": None},
        "damaged": {},
    }[wrong]
    if wrong == "damaged":
        (file,) = (far.home / "state" / "store" / "models").rglob("0.txt")
        file.write_text("b")
    far.write(KEYS.result(grant.mark), msgspec.structs.replace(result, **changed))
    for _ in range(10):
        news = far.look()
        assert news.state == "running", news
    assert news.phase
    assert far.read(KEYS.ack, Ack) is None
    for n in range(30):
        far.offer(n, "other")
        news = far.look()
    assert news.state == "lost"


def test_only_the_holder_of_the_mark_is_believed(far: Far) -> None:
    grant = far.granted()
    result = far.model(grant)
    for change in ({"worker": "x"}, {"boot": "x"}, {"nonce": "x"}, {"attempt": 2}, {"v": 2}):
        far.write(KEYS.result(grant.mark), msgspec.structs.replace(result, **change))
        assert far.look().state in ("waiting", "running")
    far.store.write(KEYS.result(grant.mark), protocol.encode(result)[:-20])
    assert far.look().state in ("waiting", "running")
    far.write(KEYS.result(grant.mark), result)
    assert far.look().state == "done"


@pytest.mark.parametrize(
    ("state", "failure", "over"),
    [
        ("failed", "user_code", True),
        ("failed", "configuration", True),
        ("failed", "time_limit", True),
        ("failed", "preempted", False),
        ("lost", "lost", False),
    ],
)
def test_failures_have_a_class(far: Far, state: Any, failure: str, over: bool) -> None:
    grant = far.granted()
    far.write(
        KEYS.result(grant.mark),
        Result(
            attempt=1,
            nonce=grant.ticket.nonce,
            worker="w",
            boot="b",
            state=state,
            failure=failure,
            error="why",
            details={"hint": "do"},
        ),
    )
    news = far.look()
    assert (news.state, news.failure, news.error, news.details) == (state, failure, "why", {"hint": "do"})
    assert (far.read(KEYS.ack, Ack) is not None) == over


# --- Stopping -------------------------------------------------------------------------------------------------


def test_cancelled_before_anybody_had_it(far: Far) -> None:
    far.runner.cancel("r1-1")
    assert far.look().state == "cancelled"
    assert far.read(KEYS.ack, Ack).state == "cancelled"


def test_what_was_cancelled_never_counts(far: Far) -> None:
    grant = far.granted()
    far.runner.cancel("r1-1")
    assert far.look().state == "waiting"
    assert far.read(KEYS.control(grant.mark), Control).what == "cancel"
    far.write(KEYS.result(grant.mark), far.model(grant))
    assert far.look().state == "cancelled"


def test_cancelled_and_the_worker_is_gone(far: Far) -> None:
    far.granted()
    far.runner.cancel("r1-1")
    for _ in range(20):
        news = far.look()
    assert news.state == "cancelled"


def test_a_run_that_is_given_up_is_told_to_everybody(far: Far) -> None:
    """The stage has tried often enough: no worker shall wait for the next attempt."""
    far.ledger.add(Run(id="r1", loop="l", state=RunState.QUEUED, why=""), by="run", because="")
    grant = far.granted()
    far.write(
        KEYS.result(grant.mark),
        Result(attempt=1, nonce=grant.ticket.nonce, worker="w", boot="b", state="lost", failure="lost"),
    )
    assert far.look().state == "lost"
    far.look()
    assert far.read(KEYS.ack, Ack) is None
    far.ledger.move(far.ledger.get(Run, "r1"), RunState.FAILED, by="run", because="")
    far.look()
    far.look()
    assert far.read(KEYS.ack, Ack).state == "failed"


# --- Dying ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_app_may_die_between_any_two_lines(tmp_path: Path, when: str) -> None:
    for fatal in count(1):
        home = tmp_path / str(fatal)
        store = make("stores", Use(use="local"), home=home, state=home / "state")
        ledger = make("ledgers", Use(use="memory"), home=home, state=home, now=lambda: datetime.now(UTC))
        far = Far(home, store, ledger)
        calls = count(1)
        die = lambda fatal=fatal, calls=calls: when if next(calls) == fatal else ""  # noqa: E731
        far.app(Mortal(store, die), Mortal(ledger, die))
        died = _story(far)
        if not died:
            assert next(calls) <= fatal > 20  # it came to the end before its turn to die
            break
        far.app()
        assert not _story(far)
        marks = {key.rpartition("/")[2] for key in store.list(KEYS.grants)}
        assert len(marks) == 1
        assert len(store.list("models")) == 1
        assert far.read(KEYS.ack, Ack).state == "done"
        assert far.read(KEYS.ack, Ack).mark == far.read(KEYS.grants + "/" + marks.pop(), Grant).mark
        shutil.rmtree(home)


def _story(far: Far) -> bool:
    """Play a run from start to sweep, whatever of it was played before; say whether the app died."""
    with suppress(Killed):
        far.runner.start(TICKET)
        for counter in range(1, 60):
            if far.read(KEYS.ack, Ack) is None:
                far.offer(counter + int(far.now))
            if far.look().state == "done" and "r1-1" not in far.watches:
                return False
            for key in far.store.list(KEYS.grants):
                grant = far.read(key, Grant)
                if far.read(KEYS.result(grant.mark), Result) is None:
                    far.write(KEYS.result(grant.mark), far.model(grant))
            if far.runner.poll("r1-1").state == "done":
                far.runner.tend()
                for watch in list(far.watches.values()):
                    while watch.look():
                        far.now += POLL_S
                assert far.store.list(KEYS.offers) == []
                return False
        raise AssertionError("it does not come to an end")
    return True


def test_two_apps_on_copies_of_one_ledger(tmp_path: Path, store: Store) -> None:
    """A backup was put into service beside the original: each believes only whom it chose itself."""

    def opened(name: str) -> Ledger:
        made: Ledger = make(
            "ledgers", Use(use="sql"), home=tmp_path, state=tmp_path / name, now=lambda: datetime.now(UTC)
        )
        return made

    first = opened("one")
    far = Far(tmp_path, store, first)
    far.runner.start(TICKET)
    first.close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    ledgers = [opened("one"), opened("two")]
    grants = []
    for ledger in ledgers:
        far.ledger = ledger
        far.app()
        before = set(store.list(KEYS.grants))
        for counter in range(1, 4):
            far.offer(counter + 10 * len(grants))
            far.look()
        (key,) = set(store.list(KEYS.grants)) - before
        grants.append(far.read(key, Grant))
    assert grants[0].mark != grants[1].mark
    assert grants[0].ticket.out != grants[1].ticket.out
    far.write(KEYS.result(grants[0].mark), far.model(grants[0]))
    assert far.look().state in ("waiting", "running")  # the second app did not ask for that one
    far.ledger = ledgers[0]
    far.app()
    assert far.look().artifact == grants[0].ticket.out
    for ledger in ledgers:
        ledger.close()


def test_what_nobody_needs_is_swept(tmp_path: Path, store: Store, ledger: Ledger) -> None:
    far = Far(tmp_path, store, ledger, keep=0)
    far.runner.start(TICKET)
    grant = far.granted()
    far.checkpoint(grant.mark, 5)
    far.write(KEYS.result(grant.mark), far.model(grant))
    assert far.look().state == "done"
    watch = far.watches["r1-1"]
    while watch.look():
        pass
    assert store.list("jobs") == []
    assert list(store.list("models")) == [grant.ticket.out]
