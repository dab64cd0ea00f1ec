"""The history log through crashes and rotations, and config.json laid over evergreen.toml."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.backends.ledger.memory import MemoryLedger
from evergreen.core import config
from evergreen.core.config import LoopConfig
from evergreen.core.errors import ConfigError
from evergreen.core.loop import Loop
from evergreen.core.recipe import PluginOptions
from evergreen.core.records import Dataset, Model, Run
from evergreen.core.states import ModelState, RunState
from evergreen.templates.parima import DoorOptions, ParimaDoor
from evergreen.templates.parima.history import History, Teller

FILES = Path(__file__).parents[2] / "src/evergreen/templates/parima/files"
CSV = "./data/training_logs/parima_decisions_log.csv"


class PowerCut(BaseException):
    """The process ends here."""


class Frail(MemoryLedger):
    """A ledger whose process can die right before it remembers something."""

    dying = False

    def remember(self, scope: str, key: str, value: str | None) -> None:
        if self.dying:
            raise PowerCut
        super().remember(scope, key, value)


def ledger(tmp: Path) -> Frail:
    ticks = count()
    start = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
    return Frail(PluginOptions(), home=tmp, state=tmp, now=lambda: start + timedelta(seconds=next(ticks)))


def loop(tmp: Path, kept: Frail | None = None) -> Loop:
    ids = count()
    part: Any = None
    return Loop(
        name="parima",
        config=LoopConfig.model_validate({"recipe": {"use": "tabular", "model": "random_forest"}}),
        recipe=part,
        ledger=kept or ledger(tmp),
        store=part,
        runner=part,
        sources=(),
        home=tmp,
        state=tmp / ".evergreen",
        now=lambda: datetime(2024, 1, 15, tzinfo=UTC),
        new_id=lambda: f"{next(ids):08x}",
        open_file=part,
    )


def train(loop: Loop, version: int, *, end: RunState = RunState.SUCCEEDED, **about: Any) -> None:
    """Let a training happen, as the stages do it."""
    add, move = loop.ledger.add, loop.ledger.move
    data = Dataset(
        id=loop.new_id(),
        loop="parima",
        version=version,
        as_of=1,
        collected=500,
        train=400,
        holdout=100,
        digest="",
        key="",
    )
    add(data, by="dataset", because="test")
    run = Run(id=loop.new_id(), loop="parima", state=RunState.QUEUED, why="500 new samples", dataset=data.id, **about)
    run = move(add(run, by="run", because="queued"), RunState.RUNNING, by="run", because="attempt 1 started")
    if end is not RunState.SUCCEEDED:
        move(run, end, by="run", because="a row is bad", error="a row is bad", failure="user_code")
        return
    move(run, end, by="run", because=f"left candidate v{version}")
    model = Model(
        id=loop.new_id(), loop="parima", state=ModelState.CANDIDATE, version=version,
        key=f"models/parima/{run.id}-1", run=run.id, scores={"accuracy": 0.85},
    )  # fmt: skip
    model = add(model, by="run", because="test")
    verdict = {"outcome": "promote", "because": "first model", "figures": {}}
    model = move(model, ModelState.PASSED, by="gate", because="first model", verdict=verdict)
    if old := loop.ledger.last(Model, "parima", ModelState.CHAMPION):
        move(old, ModelState.RETIRED, by="rollout", because="succeeded")
    move(model, ModelState.CHAMPION, by="rollout", because="there is no champion yet", share=1.0)


def skip(loop: Loop) -> None:
    details = {"n_samples": 50, "min_required": 100}
    loop.ledger.note("parima", "skipped", by="trigger", because="Not enough samples: 50 < 100", details=details)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# The lines


def test_a_training_is_told_as_it_always_was(tmp_path: Path) -> None:
    a = loop(tmp_path)
    skip(a)
    train(a, 1)
    History(tmp_path / "logs" / "history.log", CSV).write(a)
    lines = read(tmp_path / "logs" / "history.log")
    assert [line["event_type"] for line in lines] == [
        "TRAINING_SKIPPED",
        "TRAINING_STARTED",
        "TRAINING_COMPLETED",
        "MODEL_UPDATED",
    ]
    skipped, started, completed, updated = (line["details"] for line in lines)
    assert (skipped["n_samples"], skipped["min_required"]) == (50, 100)
    assert (started["csv_path"], started["model_type"], started["n_samples"]) == (CSV, "random_forest", 500)
    assert (completed["accuracy"], completed["n_samples"], completed["n_test_samples"]) == (0.85, 400, 100)
    assert completed["verdict"] == {"outcome": "promote", "because": "first model"}
    assert completed["model_path"] == updated["model_path"]
    assert updated["version"] == 1
    assert lines[0]["message"] == "Not enough samples: 50 < 100"
    for line in lines:
        assert list(line) == ["timestamp", "event_type", "message", "details"]
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)


@pytest.mark.parametrize("end", [RunState.FAILED, RunState.CANCELLED])
def test_a_training_that_ends_without_a_model_has_failed(tmp_path: Path, end: RunState) -> None:
    a = loop(tmp_path)
    train(a, 1, end=end, overrides={"model": "svm"}, file="/x/data/mine.csv")
    History(tmp_path / "history.log", CSV).write(a)
    line = read(tmp_path / "history.log")[-1]
    assert line["event_type"] == "TRAINING_FAILED"
    assert "a row is bad" in line["message"]
    assert line["details"]["error"] == "a row is bad"
    assert (line["details"]["csv_path"], line["details"]["model_type"]) == ("/x/data/mine.csv", "svm")


def test_the_newest_lines_come_oldest_first_however_much_else_happened(tmp_path: Path) -> None:
    a = loop(tmp_path)
    for version in range(1, 5):
        train(a, version)
        for _ in range(100):
            a.ledger.note("parima", "source failed", by="collect", because="test")
    History(tmp_path / "history.log", CSV).write(a)
    assert Teller(a, CSV).recent(10) == read(tmp_path / "history.log")[-10:]
    assert Teller(loop(tmp_path), CSV).recent(10) == []


# The file


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What happens: events, and writings that end well, before they are remembered, or in the middle of a line."""
    what = st.sampled_from(["train", "skip", "write", "forget", "tear"])
    return draw(st.lists(st.tuples(what, st.integers(0, 4000)), min_size=1, max_size=25))


@given(stories())
@settings(max_examples=150, deadline=None)
def test_every_event_is_written_once_in_order_whatever_dies_when(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("history")
    path, kept = folder / "history.log", ledger(folder)
    a = loop(folder, kept)
    versions = count(1)
    for what, figure in story:
        if what == "train":
            train(a, next(versions))
        elif what == "skip":
            skip(a)
        else:
            before = path.stat().st_size if path.exists() else 0
            kept.dying = what != "write"
            with suppress(PowerCut):
                History(path, CSV).write(a)
            kept.dying = False
            if what == "tear" and path.exists():
                written = path.stat().st_size - before
                with path.open("r+b") as file:
                    file.truncate(before + figure % (written + 1))
    History(path, CSV).write(a)
    lines = read(path) if path.exists() else []
    told = [line["details"]["event"] for line in lines]
    assert told == sorted(set(told))
    assert lines == Teller(a, CSV).recent(10_000)
    assert History(path, CSV).write(a) == 0


def test_a_deleted_or_rotated_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "history.log"
    a = loop(tmp_path)
    skip(a)
    History(path, CSV).write(a)
    path.rename(tmp_path / "history.log.1")
    skip(a)
    History(path, CSV).write(a)
    old, new = read(tmp_path / "history.log.1"), read(path)
    assert len(old) == len(new) == 1
    assert old[0]["details"]["event"] < new[0]["details"]["event"]


def test_lines_of_the_old_system_and_of_another_ledger_stay(tmp_path: Path) -> None:
    path = tmp_path / "history.log"
    old = '{"timestamp": "2024-01-15T11:00:00", "event_type": "TRAINING_SKIPPED", "message": "", "details": {}}'
    path.write_text(old)  # without an end
    for _ in range(2):  # the second ledger counts its events from the start again
        a = loop(tmp_path, replace_clock(tmp_path))
        skip(a)
        History(path, CSV).write(a)
    assert len(read(path)) == 3
    assert path.read_text().startswith(old + "\n")


def replace_clock(tmp: Path) -> Frail:
    return Frail(PluginOptions(), home=tmp, state=tmp, now=lambda: datetime.now(UTC))


# Settings


def door(folder: Path, **training: Any) -> ParimaDoor:
    (folder / "config.json").write_text(json.dumps({"parima": {"training": training}}))
    return ParimaDoor(DoorOptions(), home=folder)


def toml(**loop: Any) -> dict[str, Any]:
    return {"loops": {"parima": {"recipe": {"use": "tabular", "target": "decisionLOD"}, **loop}}}


def test_config_json_wins_and_the_rest_stays(tmp_path: Path) -> None:
    extra = {"use": "csv", "path": "more.csv"}
    raw = toml(trigger={"every": "9h", "cooldown": "1m"}, collect={"consent": False, "sources": [extra]})
    said = door(tmp_path, autoTrain=True, minSamplesForTraining=7, modelType="svm").settings(raw)
    read = config.parse(said).loops["parima"]
    assert (read.trigger.auto, read.trigger.every, read.trigger.min_size) == (True, timedelta(hours=24), 7)
    assert read.trigger.cooldown == timedelta(minutes=1)
    assert read.recipe.options == {"target": "decisionLOD", "model": "svm"}
    assert [use.options["path"] for use in read.collect.sources] == [CSV.removeprefix("./"), "more.csv"]
    assert read.collect.consent is False
    assert raw == toml(trigger={"every": "9h", "cooldown": "1m"}, collect={"consent": False, "sources": [extra]})


@pytest.mark.parametrize(("hours", "hold"), [(24, timedelta(minutes=5)), (0.1, timedelta(seconds=45))])
def test_a_rollout_ends_before_the_next_training_is_due(tmp_path: Path, hours: float, hold: timedelta) -> None:
    said = door(tmp_path, autoTrainIntervalHours=hours).settings(toml(rollout={"hold": "5m"}))
    assert config.parse(said).loops["parima"].rollout.hold == hold


def test_a_loop_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='the loop "parima"'):
        door(tmp_path).settings({"loops": {}})


def test_other_loops_are_not_watched(tmp_path: Path) -> None:
    a = loop(tmp_path)
    skip(a)
    door(tmp_path).watch(replace(a, name="another"))
    assert not (tmp_path / "data").exists()


def test_the_template_as_it_is_laid_down_says_what_the_old_defaults_said() -> None:
    raw = ParimaDoor(DoorOptions(), home=FILES).settings(config.read(FILES / "evergreen.toml"))
    read = config.parse(raw)
    mine = read.loops["parima"]
    assert (mine.trigger.auto, mine.trigger.every, mine.trigger.min_size) == (True, timedelta(hours=24), 100)
    assert mine.rollout.hold == timedelta(minutes=5)
    assert (read.http.port, mine.collect.consent, mine.recipe.options["model"]) == (5001, False, "random_forest")
