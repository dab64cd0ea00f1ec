"""What every ledger promises of datasets, runs, models and events."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from evergreen.core.errors import AlreadyWaiting, Conflict, IllegalMove, InvalidInput, NotFound, Stale
from evergreen.core.ports import Ledger
from evergreen.core.records import Dataset, Event, Model, Record, Run
from evergreen.testing.ledger.given import WHO, M, R, a_dataset, a_model, a_run, a_sample, ids, some


class RecordContract:
    """Datasets, runs, models and events: every change is told, and of two movers one wins."""

    def test_records_come_back_as_they_went(self, ledger: Ledger) -> None:
        moment = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=timezone(timedelta(hours=2)))
        given: list[Record] = [
            a_dataset("d", 1, details={"a": [1, None]}, origin="csv"),
            a_run("r", overrides={"depth": 3}, started=moment, progress={"metrics": {"loss": 0.5}}, base="m0"),
            a_model("m", 1, scores={"accuracy": 0.5}, since=moment, share=0.5, details={"é": "✓"}),
            Event(id="e", loop="l", what="skipped", subject="l", by="x", because="y", details={"n": 1}),
        ]
        for record in given:
            stored: Any = ledger.add(record, **WHO)  # type: ignore[type-var]
            assert stored.at is not None
            assert stored.at.utcoffset() == timedelta(0)
            assert replace(stored, seq=0, at=None) == record
            assert ledger.get(type(record), record.id) == stored  # type: ignore[type-var]
        started = ledger.get(Run, "r").started
        assert started is not None
        assert started.utcoffset() == timedelta(0)

    def test_what_was_stored_does_not_change_with_the_callers_copy(self, ledger: Ledger) -> None:
        scores, words = {"accuracy": 0.5}, ["a"]
        stored = ledger.add(a_model("m", 1, scores=scores), **WHO)
        ledger.append("l", [a_sample("s", input=words)])
        scores["accuracy"] = words[0] = 0  # type: ignore[call-overload]
        assert (stored.scores, ledger.get(Model, "m").scores) == ({"accuracy": 0.5}, {"accuracy": 0.5})
        assert next(ledger.samples("l")).input == ["a"]

    def test_a_moment_has_a_time_zone(self, ledger: Ledger) -> None:
        with pytest.raises(InvalidInput, match="started"):
            ledger.add(a_run("r", started=datetime(2024, 1, 1)), **WHO)

    def test_a_figure_is_a_number(self, ledger: Ledger) -> None:
        with pytest.raises(InvalidInput, match="scores"):
            ledger.add(a_model("m", 1, scores={"accuracy": float("nan")}), **WHO)
        run = ledger.add(a_run("r"), **WHO)
        with pytest.raises(InvalidInput, match="progress"):
            ledger.update(run, progress={"loss": float("nan")})
        assert (ledger.find(Model, "l"), ledger.get(Run, "r")) == ([], run)

    def test_order(self, ledger: Ledger) -> None:
        stored = [
            ledger.add(a_model(f"m{n}", n, state), **WHO) for n, state in enumerate((M.RETIRED, M.CHAMPION, M.SHADOW))
        ]
        ledger.add(a_model("x", 1, M.CHAMPION, loop="other"), **WHO)
        assert [m.seq for m in stored] == sorted(m.seq for m in stored)
        assert list(ledger.find(Model, "l")) == stored
        assert ids(ledger.find(Model, "l", newest_first=True, limit=2)) == ["m2", "m1"]
        assert ids(ledger.find(Model, "l", after=stored[0].seq, limit=1)) == ["m1"]
        assert ids(ledger.find(Model, "l", M.RETIRED, M.SHADOW)) == ["m0", "m2"]
        assert ledger.last(Model, "l") == stored[2]
        assert ledger.last(Model, "l", M.CHAMPION, M.RETIRED) == stored[1]
        assert (ledger.last(Model, "l", M.CANARY), ledger.last(Run, "l"), list(ledger.find(Event, "nobody"))) == (
            None,
            None,
            [],
        )
        assert list(ledger.find(Dataset, "l", M.CHAMPION)) == []

    def test_the_history_of_all_loops_is_read_in_one_order(self, ledger: Ledger) -> None:
        told = [ledger.note(f"l{n % 2}", "skipped", by="t", because=str(n)) for n in range(5)]
        assert list(ledger.find(Event, None)) == told
        assert list(ledger.find(Event, None, after=told[1].seq, limit=2)) == told[2:4]
        assert list(ledger.find(Event, None, newest_first=True, limit=1)) == told[4:]

    def test_every_change_is_told(self, ledger: Ledger) -> None:
        run = ledger.add(a_run("r"), by="trigger", because="100 are new")
        ledger.move(run, R.QUEUED, by="run", because="frozen", dataset="d")
        model = ledger.add(a_model("m", 1, M.SHADOW), by="gate", because="good")
        ledger.move(model, M.CANARY, by="rollout", because="held", share=0.1)
        ledger.add(a_dataset("d", 1), by="run", because="frozen")
        told = [(e.what, e.subject, e.frm, e.to, e.by, e.because, e.details) for e in ledger.find(Event, "l")]
        assert told == [
            ("added", "run r", None, "requested", "trigger", "100 are new", {}),
            ("moved", "run r", "requested", "queued", "run", "frozen", {}),
            ("added", "model m", None, "shadow", "gate", "good", {}),
            ("moved", "model m", "shadow", "canary", "rollout", "held", {"share": 0.1}),
            ("added", "dataset d", None, None, "run", "frozen", {}),
        ]
        assert ledger.get(Run, "r").dataset == "d"

    def test_a_note_is_an_event(self, ledger: Ledger) -> None:
        told = ledger.note("l", "skipped", by="trigger", because="50 < 100", details={"n": 50})
        assert (told.what, told.subject, told.by, told.because, told.details) == (
            "skipped",
            "l",
            "trigger",
            "50 < 100",
            {"n": 50},
        )
        assert list(ledger.find(Event, "l")) == [told]

    def test_an_event_tells_of_itself(self, ledger: Ledger) -> None:
        ledger.add(Event(id="e", loop="l", what="asked", subject="l", by="anna", because="curious"), **WHO)
        assert [(e.id, e.by) for e in ledger.find(Event, "l")] == [("e", "anna")]

    def test_only_the_owner_moves(self, ledger: Ledger) -> None:
        run = ledger.add(a_run("r"), **WHO)
        with pytest.raises(IllegalMove, match="made by run, not by gate"):
            ledger.move(run, R.QUEUED, by="gate", because="t")
        with pytest.raises(IllegalMove, match="not a move"):
            ledger.move(run, R.SUCCEEDED, by="run", because="t")
        with pytest.raises(IllegalMove, match="state"):
            ledger.update(run, state=R.RUNNING)
        with pytest.raises(IllegalMove, match="loop"):
            ledger.move(run, R.QUEUED, by="run", because="t", loop="other")
        assert (ledger.get(Run, "r"), len(ledger.find(Event, "l"))) == (run, 1)

    def test_the_second_mover_loses(self, ledger: Ledger) -> None:
        run = ledger.add(a_run("r"), **WHO)
        moved = ledger.move(run, R.QUEUED, by="run", because="first")
        with pytest.raises(Stale):
            ledger.move(run, R.QUEUED, **WHO)
        with pytest.raises(Stale):
            ledger.update(run, handle="h")
        assert (ledger.get(Run, "r"), len(ledger.find(Event, "l"))) == (moved, 2)

    def test_a_share_or_an_attempt_that_changed_is_stale_too(self, ledger: Ledger) -> None:
        canary = ledger.add(a_model("m", 1, M.CANARY, share=0.1), **WHO)
        ledger.move(canary, M.CANARY, by="rollout", because="held", share=0.5)
        with pytest.raises(Stale, match="share"):
            ledger.move(canary, M.CANARY, by="rollout", because="held", share=0.5)
        first = ledger.move(ledger.add(a_run("r", R.QUEUED), **WHO), R.RUNNING, **WHO)
        again = ledger.move(ledger.move(first, R.QUEUED, **WHO), R.RUNNING, **WHO, attempt=2)
        with pytest.raises(Stale, match="attempt"):
            ledger.move(first, R.SUCCEEDED, **WHO)
        assert ledger.move(again, R.SUCCEEDED, **WHO).attempt == 2

    def test_an_update_writes_no_event_and_survives_an_older_copys_move(self, ledger: Ledger) -> None:
        run = ledger.add(a_run("r", R.RUNNING), **WHO)
        assert ledger.update(run, handle="pid 7").handle == "pid 7"
        ledger.update(run, progress={"step": 3})
        done = ledger.move(run, R.SUCCEEDED, **WHO)
        assert (done.handle, done.progress, done.seq, done.at) == ("pid 7", {"step": 3}, run.seq, run.at)
        assert (ledger.get(Run, "r"), len(ledger.find(Event, "l"))) == (done, 2)

    def test_one_waiting_and_one_running_run_per_loop(self, ledger: Ledger) -> None:
        first = ledger.add(a_run("1"), **WHO)
        for state in (R.REQUESTED, R.QUEUED):
            with pytest.raises(AlreadyWaiting, match="run 1"):
                ledger.add(a_run("2", state), **WHO)
        running = ledger.move(ledger.move(first, R.QUEUED, **WHO), R.RUNNING, **WHO)
        second = ledger.move(ledger.add(a_run("2"), **WHO), R.QUEUED, **WHO)
        with pytest.raises(AlreadyWaiting, match="run 1, which is running"):
            ledger.move(second, R.RUNNING, **WHO)
        with pytest.raises(AlreadyWaiting, match="run 2, which is queued"):
            ledger.move(running, R.QUEUED, **WHO)
        ledger.add(a_run("3", loop="other"), **WHO)
        ledger.move(running, R.SUCCEEDED, **WHO)
        ledger.move(second, R.RUNNING, **WHO)
        assert [(r.id, r.state) for r in ledger.find(Run, "l")] == [("1", R.SUCCEEDED), ("2", R.RUNNING)]

    def test_ids_and_versions_are_taken_once(self, ledger: Ledger) -> None:
        ledger.add(a_model("m", 1), **WHO)
        ledger.add(a_dataset("d", 1), **WHO)
        ledger.add(a_run("r", R.FAILED), **WHO)
        taken: list[Any] = [
            a_model("n", 1), a_dataset("e", 1), a_model("m", 2), a_dataset("d", 2), a_run("r", R.SKIPPED),
        ]  # fmt: skip
        for record in taken:
            with pytest.raises(Conflict, match="taken" if record.id in "ne" else "already"):
                ledger.add(record, **WHO)
        ledger.add(a_model("o", 1, loop="other"), **WHO)
        assert len(ledger.find(Event, "l")) == 3

    def test_what_is_missing_is_not_found(self, ledger: Ledger) -> None:
        ledger.add(a_run("r"), **WHO)
        kinds: list[Any] = [Dataset, Model, Event]
        for kind in kinds:
            with pytest.raises(NotFound, match="r"):
                ledger.get(kind, "r")
        with pytest.raises(NotFound):
            ledger.move(a_run("x"), R.QUEUED, **WHO)
        with pytest.raises(NotFound):
            ledger.update(a_run("x"), handle="h")

    def test_the_revision_rises(self, ledger: Ledger) -> None:
        seen = [ledger.revision()]
        run = ledger.add(a_run("r"), **WHO)
        seen.append(ledger.revision())
        run = ledger.move(run, R.QUEUED, **WHO)
        seen.append(ledger.revision())
        ledger.update(run, handle="h")
        seen.append(ledger.revision())
        ledger.note("l", "skipped", **WHO)
        seen.append(ledger.revision())
        assert seen == sorted(set(seen))
        ledger.append("l", some(1))
        ledger.remember("a", "b", "c")
        assert ledger.revision() == seen[-1]
