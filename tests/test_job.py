"""The far side: what `work` does with a ticket, and `python -m evergreen.job` with a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, Corrupt, InvalidInput, JobFailed
from evergreen.core.plugins import make
from evergreen.core.ports import Progress, Store, Ticket
from evergreen.core.recipe import Job, Predictor, Row, Scores
from evergreen.core.records import Json
from evergreen.job import outcome, work
from evergreen.job.digest import digest
from evergreen.job.folder import RunFolder
from evergreen.testing.runner import MAJORITY, Majority, put_dataset


class Odd(Majority):
    """A recipe that does what the test says."""

    does: ClassVar[dict[str, Any]] = {}

    def train(self, job: Job) -> Mapping[str, Json]:
        told = super().train(job)
        if act := self.does.get("train"):
            return act(job, told)  # type: ignore[no-any-return]
        return told

    def load(self, artifact: Path) -> Predictor:
        if act := self.does.get("load"):
            act(artifact)
        return super().load(artifact)

    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        if act := self.does.get("score"):
            return act(predictor, rows)  # type: ignore[no-any-return]
        return super().score(predictor, rows)

    def report(self, artifact: Path, predictor: Predictor, rows: Sequence[Row], folder: Path) -> None:
        if act := self.does.get("report"):
            act(folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made: Store = make("stores", Use(use="local"), home=tmp_path, state=tmp_path / "state")
    return made


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `Odd` is to do; it is reached by name, as every recipe is."""
    monkeypatch.setattr(Odd, "does", does := {})
    monkeypatch.setattr("evergreen.testing.runner.Odd", Odd, raising=False)
    return does


ODD = {"use": "evergreen.testing.runner:Odd"}


@pytest.fixture
def ticket(store: Store, tmp_path: Path) -> Ticket:
    key = put_dataset(store, tmp_path / "dataset", "datasets/d1", "aaab", "ab")
    return Ticket("r1", "loop", 1, ODD, key, "models/r1", seed=7, threads=3)


def put_champion(store: Store, folder: Path, answer: str) -> str:
    folder.mkdir()
    (folder / "answer.json").write_text(answer)
    store.put("models/champion", folder)
    return "models/champion"


def run(ticket: Ticket, store: Store, folder: Path, **more: Any) -> Progress:
    return work(ticket, store, lambda progress: None, folder / "work", **more)


def test_phases_come_in_order_and_the_recipe_reports_between(
    ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]
) -> None:
    def train(job: Job, told: Mapping[str, Json]) -> Mapping[str, Json]:
        job.report("epochs", 1, 2, {"loss": np.float32(0.5), "worst": float("nan")})
        return told

    odd["train"] = train
    seen: list[Progress] = []
    work(ticket, store, seen.append, tmp_path / "work")
    assert list(dict.fromkeys(progress.phase for progress in seen)) == [
        "fetching",
        "fetching the dataset",
        "training",
        "epochs",
        "scoring",
        "storing",
        "storing the model",
    ]
    assert next(p for p in seen if p.phase == "epochs") == Progress("running", "epochs", 1, 2, {"loss": 0.5})


def test_the_recipe_is_given_everything_but_the_holdout(
    ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]
) -> None:
    jobs: list[Job] = []

    def train(job: Job, told: Mapping[str, Json]) -> Mapping[str, Json]:
        jobs.append(job)
        assert [path.name for path in job.data.iterdir()] == ["train.jsonl"]
        assert job.checkpoints is not None
        assert job.checkpoints.is_dir()
        return told

    odd["train"] = train
    assert outcome(ticket, store, lambda _: None, tmp_path / "work", checkpoints=tmp_path / "cp").state == "done"
    assert (jobs[0].seed, jobs[0].threads, jobs[0].base) == (7, 3, None)
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "cp").exists()


def test_details_need_not_be_plain(ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]) -> None:
    odd["train"] = lambda job, told: {"n": np.int64(3), "f": np.float32(0.5), "where": Path("x"), "odd": float("nan")}
    details = run(ticket, store, tmp_path).details
    assert {name: details[name] for name in ("n", "f", "where", "odd")} == {"n": 3, "f": 0.5, "where": "x", "odd": None}


@pytest.mark.parametrize(
    ("figures", "said"),
    [([1.0], "1 figures of accuracy for 2 rows"), ([1.0, float("nan")], "accuracy that is not a number")],
)
def test_scores_must_be_one_finite_figure_per_row(
    ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any], figures: list[float], said: str
) -> None:
    odd["score"] = lambda predictor, rows: {"accuracy": figures}
    with pytest.raises(JobFailed, match=said) as caught:
        run(ticket, store, tmp_path)
    assert caught.value.kind == "user_code"
    assert store.list("models") == []


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (KeyError("x"), "user_code", "KeyError: 'x'"),
        (MemoryError(), "user_code", "ran out of memory"),
        (SystemExit(3), "user_code", r"exit 3"),
        (ConfigError("no such layer", hint="Name one."), "configuration", "no such layer"),
        (InvalidInput("row 3 has no label"), "user_code", "row 3 has no label"),
        (JobFailed("the card is gone", kind="preempted"), "preempted", "the card is gone"),
    ],
)
def test_what_a_recipe_raises(
    ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any], error: BaseException, kind: str, said: str
) -> None:
    odd["train"] = lambda job, told: _raise(error)
    with pytest.raises(JobFailed, match=said) as caught:
        run(ticket, store, tmp_path)
    assert caught.value.kind == kind
    again = outcome(ticket, store, lambda _: None, tmp_path / "other", checkpoints=tmp_path / "checkpoints")
    assert (again.state, again.failure, again.error) == ("failed", kind, str(caught.value))
    assert type(error).__name__ in again.details["traceback"]
    assert (tmp_path / "checkpoints").exists() == (kind == "preempted")


def test_no_artifact_is_a_failure(ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]) -> None:
    def train(job: Job, told: Mapping[str, Json]) -> Mapping[str, Json]:
        (job.out / "answer.json").unlink()
        return told

    odd["train"] = train
    with pytest.raises(JobFailed, match="left no file"):
        run(ticket, store, tmp_path)


def test_a_report_that_fails_costs_no_model(ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]) -> None:
    odd["report"] = lambda folder: _raise(OSError("no display"))
    progress = run(ticket, store, tmp_path)
    assert progress.state == "done"
    assert progress.details["report_error"] == "OSError: no display"


def test_no_such_dataset_or_recipe(ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]) -> None:
    with pytest.raises(JobFailed, match="datasets/none"):
        run(_with(ticket, dataset="datasets/none"), store, tmp_path)
    with pytest.raises(JobFailed, match="no recipe") as caught:
        run(_with(ticket, recipe={"use": "nonsense"}), store, tmp_path)
    assert caught.value.kind == "configuration"


def _with(ticket: Ticket, **changes: Any) -> Ticket:
    return replace(ticket, **changes)


def test_what_was_exchanged_in_the_store_is_noticed(
    ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]
) -> None:
    """A ticket says which bytes it means: whoever can write into the folder cannot give it other ones."""
    store.get(ticket.dataset, tmp_path / "there")
    meant = {ticket.dataset: digest(tmp_path / "there")}
    assert run(replace(ticket, digests=meant), store, tmp_path / "one").state == "done"
    base = put_champion(store, tmp_path / "champion", '"a"')
    with_base = replace(ticket, run="r2", out="models/r2", base=base, digests={base: "0" * 64})
    told = run(with_base, store, tmp_path / "two").details["champion_error"]
    assert "the champion in the store is not the one" in told
    store.delete(ticket.dataset)
    put_dataset(store, tmp_path / "other", ticket.dataset, "bbbb", "ba")
    with pytest.raises(JobFailed, match="the dataset in the store is not the one"):
        run(replace(ticket, run="r3", out="models/r3", digests=meant), store, tmp_path / "three")


def test_a_champion_of_the_same_kind_is_gone_on_from(
    ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]
) -> None:
    bases: list[str | None] = []

    def train(job: Job, told: Mapping[str, Json]) -> Mapping[str, Json]:
        bases.append((job.base / "answer.json").read_text() if job.base else None)
        return told

    odd["train"] = train
    ticket = _with(ticket, base=put_champion(store, tmp_path / "champion", '"b"'))
    first = run(ticket, store, tmp_path / "1")
    run(_with(ticket, attempt=2, base_recipe={**ODD, "sleep_s": 0.0}), store, tmp_path / "2")
    run(_with(ticket, attempt=3, base_recipe=MAJORITY), store, tmp_path / "3")
    assert bases == ['"b"', '"b"', None]
    store.get("evaluations/r1/1", tmp_path / "evaluation")
    evidence = json.loads((tmp_path / "evaluation" / "evidence.json").read_text())
    assert {k: v for k, v in evidence.items() if v} == {
        "ids": ["holdout-0", "holdout-1"],
        "candidate": {"accuracy": [1.0, 0.0]},
        "champion": {"accuracy": [0.0, 1.0]},
    }
    assert first.metrics == {"accuracy": 0.5}


def test_a_broken_champion_is_told_of(ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]) -> None:
    ticket = _with(ticket, base=put_champion(store, tmp_path / "champion", "{"))
    progress = run(ticket, store, tmp_path)
    assert progress.state == "done"
    assert progress.details["champion_error"].startswith("The champion could not be scored: base holds no answer")


def test_a_candidate_that_cannot_be_loaded_is_a_failure(
    ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]
) -> None:
    odd["load"] = lambda artifact: _raise(Corrupt("half a model"))
    with pytest.raises(JobFailed, match="half a model"):
        run(ticket, store, tmp_path)


def test_cancelled_between_two_reports(ticket: Ticket, store: Store, tmp_path: Path, odd: dict[str, Any]) -> None:
    asked: list[bool] = []
    odd["train"] = lambda job, told: asked.append(True) or told
    progress = outcome(ticket, store, lambda _: None, tmp_path / "work", lambda: bool(asked))
    assert (progress.state, progress.failure) == ("cancelled", "cancelled")
    assert store.list("models") == []


def test_a_folder_by_hand(ticket: Ticket, store: Store, tmp_path: Path) -> None:
    """`python -m evergreen.job FOLDER` needs no runner; a second call does nothing."""
    folder = RunFolder(tmp_path / "state" / "runs" / "r1-1")
    folder.path.mkdir(parents=True)
    folder.write(folder.ticket, _with(ticket, recipe=MAJORITY))
    folder.write(folder.store, {"use": {"use": "local"}, "home": str(tmp_path), "state": str(tmp_path / "state")})
    folder.write(folder.limits, {"nice": 0, "memory_mb": None})
    command = [sys.executable, "-m", "evergreen.job", str(folder.path)]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    result = folder.ended()
    assert result is not None
    assert result.state == "done"
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 1
    assert "never trained twice" in again.stderr
    assert folder.ended() == result
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "beat.json", "begun", "limits.json", "lock", "result.json", "store.json", "ticket.json",
    ]  # fmt: skip
