"""What every runner promises, as a test class to inherit from, and the smallest recipe to try it with."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from evergreen.core.errors import Corrupt, InvalidInput
from evergreen.core.ports import Evidence, Progress, Runner, Store, Ticket
from evergreen.core.recipe import Job, PluginOptions, Predictor, Recipe, Row, Scores
from evergreen.core.records import Json


class MajorityOptions(PluginOptions):
    """How a `Majority` behaves."""

    sleep_s: float = 0.0
    """How long it trains, reporting every 20 ms."""
    fail: bool = False
    """Raise a ValueError in the middle of training."""
    crash: bool = False
    """Abort the process in the middle of training."""
    answer: str | None = None
    """Give this answer instead of the most frequent label."""
    mark: str | None = None
    """A file to which every training that begins adds a line."""


class Always:
    """A model with one answer."""

    def __init__(self, answer: Json) -> None:
        self.answer = answer

    def predict(self, inputs: Sequence[Json]) -> Sequence[Json]:
        """Answer each input the same."""
        return [self.answer] * len(inputs)

    def close(self) -> None:
        """Hold nothing, let go of nothing."""


class Majority(Recipe):
    """Answers the most frequent label: `{"use": "evergreen.testing.runner:Majority"}`."""

    Options = MajorityOptions
    quick = True

    def train(self, job: Job) -> Mapping[str, Json]:
        """Count labels."""
        if self.options.mark:
            with Path(self.options.mark).open("a") as file:
                file.write(f"{os.getpid()}\n")
        labels = Counter(json.dumps(row.label) for row in job.rows())
        steps = max(1, round(self.options.sleep_s / 0.02))
        for step in range(1, steps + 1):
            time.sleep(self.options.sleep_s / steps)
            job.report("training", step, steps, {"labels": float(len(labels))})
        if self.options.fail:
            raise ValueError("this recipe was told to fail")
        if self.options.crash:
            os.abort()
        answer, n = max(labels.items(), key=lambda pair: (pair[1], pair[0]))
        if self.options.answer is not None:
            answer = json.dumps(self.options.answer)
        (job.out / "answer.json").write_text(answer)
        return {"n_train": labels.total(), "n_answer": n}

    def load(self, artifact: Path) -> Predictor:
        """Read the answer."""
        try:
            return Always(json.loads((artifact / "answer.json").read_text()))
        except (OSError, ValueError) as e:
            raise Corrupt(f"{artifact.name} holds no answer: {e}") from e

    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        """Compare answers with labels."""
        answers = predictor.predict([row.input for row in rows])
        return {"accuracy": [float(answer == row.label) for answer, row in zip(answers, rows, strict=True)]}

    def report(self, artifact: Path, predictor: Predictor, rows: Sequence[Row], folder: Path) -> None:  # noqa: ARG002
        """Write one line."""
        (folder / "report.md").write_text(f"Judged on {len(rows)} rows.\n")


MAJORITY: Mapping[str, Json] = {"use": "evergreen.testing.runner:Majority"}


def put_dataset(store: Store, folder: Path, key: str, labels: Sequence[Json], holdout: Sequence[Json] = ()) -> str:
    """Store a dataset of these labels, laid out as a frozen version is, and return its key."""
    for side, those in (("train", labels), ("holdout", holdout)):
        place = folder / side
        place.mkdir(parents=True, exist_ok=True)
        rows = [Row(id=f"{side}-{n}", input={"n": n}, label=label) for n, label in enumerate(those)]
        (place / f"{side}.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    (folder / "dataset.json").write_text("{}")
    store.put(key, folder)
    return key


def wait_for(runner: Runner, handle: str, until: Callable[[Progress], bool], timeout_s: float = 20.0) -> Progress:
    """Poll until `until` holds; raises `AssertionError` with what was seen last if it never does."""
    deadline = time.monotonic() + timeout_s
    while not until(progress := runner.poll(handle)):
        assert time.monotonic() < deadline, f"still {progress} after {timeout_s} s"
        time.sleep(0.02)
    return progress


def ended(progress: Progress) -> bool:
    """Say whether a run is over."""
    return progress.state not in ("waiting", "running")


class RunnerContract:
    """Inherit, and give fixtures `runner` and `store` (the store the runner was given)."""

    #: `start` returns only when the training has ended, so nothing can be seen or stopped on the way.
    blocking = False

    def dataset(self, store: Store, folder: Path) -> str:
        """Store seven times "a" and three times "b" to learn from, three and one to judge by."""
        return put_dataset(store, folder / "dataset", "datasets/d1", "aaaaaaabbb", "aaab")

    def ticket(self, store: Store, folder: Path, run: str = "r1", **changes: Any) -> Ticket:
        """Return a ticket for `Majority`; `recipe` holds only its options."""
        recipe = {**MAJORITY, **changes.pop("recipe", {})}
        attempt = changes.pop("attempt", 1)
        key = changes.pop("dataset", None) or self.dataset(store, folder)
        return Ticket(run, "loop", attempt, recipe, key, f"models/{run}/{attempt}", **changes)

    def test_done_leaves_an_artifact_and_evidence(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        progress = wait_for(runner, runner.start(self.ticket(store, tmp_path)), ended)
        assert progress.state == "done", progress
        assert progress.metrics == {"accuracy": 0.75}
        assert progress.details["n_train"] == 10
        assert progress.details["n_holdout"] == 4
        assert progress.details["size_bytes"] == 3
        assert progress.details["latency_ms"] >= 0
        assert progress.details["environment"]["python"]
        store.get(progress.artifact or "models/r1/1", tmp_path / "artifact")
        assert (tmp_path / "artifact" / "answer.json").read_text() == '"a"'
        evidence = self.evidence(store, progress, tmp_path)
        assert evidence == Evidence([f"holdout-{n}" for n in range(4)], {"accuracy": [1.0, 1.0, 1.0, 0.0]}, {})
        assert (tmp_path / "evaluation" / "report" / "report.md").read_text() == "Judged on 4 rows.\n"

    def test_the_champion_is_scored_on_the_same_rows(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        (tmp_path / "champion").mkdir()
        (tmp_path / "champion" / "answer.json").write_text('"b"')
        store.put("models/old", tmp_path / "champion")
        progress = wait_for(runner, runner.start(self.ticket(store, tmp_path, base="models/old")), ended)
        assert progress.state == "done", progress
        assert "champion_error" not in progress.details
        assert self.evidence(store, progress, tmp_path).champion == {"accuracy": [0.0, 0.0, 0.0, 1.0]}

    def test_a_champion_that_cannot_be_judged_does_not_stop_the_run(
        self, runner: Runner, store: Store, tmp_path: Path
    ) -> None:
        progress = wait_for(runner, runner.start(self.ticket(store, tmp_path, base="models/gone")), ended)
        assert progress.state == "done", progress
        assert "models/gone" in progress.details["champion_error"]
        assert self.evidence(store, progress, tmp_path).champion == {}

    def test_no_holdout_is_no_scores(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        key = put_dataset(store, tmp_path / "d2", "datasets/d2", "ab")
        progress = wait_for(runner, runner.start(self.ticket(store, tmp_path, dataset=key)), ended)
        assert progress.state == "done", progress
        assert progress.metrics == {}
        assert progress.details["n_holdout"] == 0

    def test_a_recipe_that_fails_is_user_code(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        progress = wait_for(runner, runner.start(self.ticket(store, tmp_path, recipe={"fail": True})), ended)
        assert (progress.state, progress.failure) == ("failed", "user_code")
        assert progress.error == "ValueError: this recipe was told to fail"
        assert "in train" in progress.details["traceback"]
        assert list(store.list("models")) == []

    def test_wrong_options_are_configuration(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        progress = wait_for(runner, runner.start(self.ticket(store, tmp_path, recipe={"wrong": 1})), ended)
        assert (progress.state, progress.failure) == ("failed", "configuration")
        assert "wrong" in progress.error

    def test_the_same_attempt_twice_begins_once(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        ticket = self.ticket(store, tmp_path, recipe={"mark": str(mark), "sleep_s": 0.1})
        handles = {runner.start(ticket) for _ in range(3)}
        assert len(handles) == 1
        assert wait_for(runner, handles.pop(), ended).state == "done"
        runner.start(ticket)
        assert len(mark.read_text().split()) == 1

    def test_the_next_attempt_is_another(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        first = runner.start(self.ticket(store, tmp_path, recipe={"fail": True}))
        assert wait_for(runner, first, ended).state == "failed"
        second = runner.start(self.ticket(store, tmp_path, attempt=2))
        assert second != first
        assert wait_for(runner, second, ended).state == "done"

    def test_progress_rises(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        if self.blocking:
            return
        handle = runner.start(self.ticket(store, tmp_path, recipe={"sleep_s": 60}))
        halfway = wait_for(runner, handle, lambda p: p.phase == "training" and p.step > 0)
        assert halfway.state == "running"
        assert 0 < halfway.step < halfway.total
        assert halfway.metrics == {"labels": 2.0}
        later = wait_for(runner, handle, lambda p: p.step > halfway.step or ended(p))
        assert later.state == "running"
        runner.cancel(handle)
        wait_for(runner, handle, ended)

    def test_cancelled(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        handle = runner.start(self.ticket(store, tmp_path, recipe={"sleep_s": 0.2 if self.blocking else 30}))
        runner.cancel(handle)
        state = wait_for(runner, handle, ended).state
        assert state == ("done" if self.blocking else "cancelled")
        runner.cancel(handle)
        assert runner.poll(handle).state == state

    def test_the_time_limit(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        handle = runner.start(self.ticket(store, tmp_path, recipe={"sleep_s": 30}, limit_s=0.3))
        progress = wait_for(runner, handle, ended)
        assert (progress.state, progress.failure) == ("failed", "time_limit")
        assert "0.3 s" in progress.error

    def test_lost_when_the_process_dies(self, runner: Runner, store: Store, tmp_path: Path) -> None:
        if self.blocking:
            return
        progress = wait_for(runner, runner.start(self.ticket(store, tmp_path, recipe={"crash": True})), ended)
        assert progress.state == "lost"
        assert progress.error
        assert list(store.list("models")) == []

    def test_what_was_never_started_is_lost(self, runner: Runner) -> None:
        import pytest

        assert runner.poll("never-1").state == "lost"
        runner.cancel("never-1")
        with pytest.raises(InvalidInput):
            runner.poll("../elsewhere")

    def evidence(self, store: Store, progress: Progress, folder: Path) -> Evidence:
        """Fetch what was measured."""
        store.get(progress.details["evaluation"], folder / "evaluation")
        return msgspec.json.decode((folder / "evaluation" / "evidence.json").read_bytes(), type=Evidence)
