"""Datasets: a row is on one side for ever, nothing is judged by what taught, and a version holds what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evergreen
from evergreen.core.loop import Loop
from evergreen.core.records import Dataset, Run, Sample
from evergreen.core.states import RunState
from evergreen.stages import collect, dataset

Open = Callable[..., Loop]
Feed = Callable[..., None]
MEMORY = """
ledger = { use = "memory" }
[loops.l]
recipe = { use = "evergreen.testing.runner:Majority" }
[loops.l.collect]
consent = false
[loops.l.dataset]
split = "time"
holdout = 0.25
"""


def frozen(loop: Loop, origin: str | None = None) -> Dataset:
    made = dataset.freeze(loop, Run(id=loop.new_id(), loop="l", state=RunState.QUEUED, why="", origin=origin))
    assert isinstance(made, Dataset), made
    return made


def rows(loop: Loop, made: Dataset, side: str) -> list[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        loop.store.get(made.key, Path(folder) / "d")
        return [json.loads(line) for line in (Path(folder) / "d" / side / f"{side}.jsonl").read_text().splitlines()]


def ids(loop: Loop, made: Dataset, side: str) -> list[str]:
    return [row["id"] for row in rows(loop, made, side)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["a", "b"]), st.booleans()), min_size=1, max_size=12))
def test_by_time_no_row_ever_changes_sides_and_the_share_comes_out(batches: list[tuple[int, str, bool]]) -> None:
    with TemporaryDirectory() as home:
        (Path(home) / "evergreen.toml").write_text(MEMORY)
        loop = evergreen.open(Path(home) / "evergreen.toml")["l"]
        sides: dict[str, str] = {}
        n = 0
        for size, origin, alone in batches:
            made = [Sample(id=f"s{n + i}", loop="l", input={"i": n + i}, label="x", origin=origin) for i in range(size)]
            loop.ledger.append("l", made)
            n += size
            of = origin if alone else None
            if not loop.ledger.counts("l", origin=of).usable:
                continue
            version = frozen(loop, of)
            for side in ("train", "holdout"):
                for id in ids(loop, version, side):
                    assert sides.setdefault(id, side) == side
        if n:
            version = frozen(loop)
            held = set(ids(loop, version, "holdout"))
            assert not held & set(ids(loop, version, "train"))
            assert len(held) + version.train == n
            assert abs(len(held) - n / 4) <= 3  # rounded apart for each origin and for both


def test_rows_that_come_one_at_a_time_are_held_out_too(open_loop: Open, feed: Feed) -> None:
    loop = open_loop(dataset='split = "time"\nholdout = 0.2')
    for _ in range(20):
        feed(loop, 1, "a")
        made = frozen(loop)
    assert (made.train, made.holdout) == (16, 4)


def test_the_newest_are_held_out(open_loop: Open, feed: Feed) -> None:
    loop = open_loop(dataset='split = "time"\nholdout = 0.2')
    feed(loop, 50, "a")
    made = frozen(loop)
    inputs = {side: [row["input"]["i"] for row in rows(loop, made, side)] for side in ("train", "holdout")}
    assert inputs == {"train": list(range(40)), "holdout": list(range(40, 50))}


def test_no_more_than_asked_for_and_of_those_the_newest(open_loop: Open, feed: Feed) -> None:
    loop = open_loop(dataset='split = "time"\nholdout = 0.5\nmax_train = 10\nmax_holdout = 12')
    feed(loop, 60, "a")
    made = frozen(loop)
    assert [row["input"]["i"] for row in rows(loop, made, "train")] == list(range(20, 30))
    assert [row["input"]["i"] for row in rows(loop, made, "holdout")] == list(range(48, 60))


def test_a_held_out_row_that_teaches_under_another_id_does_not_judge(open_loop: Open) -> None:
    loop = open_loop(dataset='split = "time"\nholdout = 0.5')
    twins = [{"input": {"i": i % 15}, "label": "a"} for i in range(20)]
    loop.ledger.append("l", [collect.admit(loop, row, origin="t") for row in twins])
    made = frozen(loop)
    assert (made.train, made.holdout, made.details["holdout_also_in_train"]) == (10, 5, 5)


def test_a_run_on_one_origin_sees_no_other(open_loop: Open, feed: Feed) -> None:
    loop = open_loop(dataset='split = "time"')
    feed(loop, 30, "a", origin="log")
    feed(loop, 20, "b", origin="mine")
    made = frozen(loop, "mine")
    assert {row["label"] for side in ("train", "holdout") for row in rows(loop, made, side)} == {"b"}
    assert dataset.latest(loop).new == 50  # a training on one origin has not learnt the rest


def test_what_comes_while_a_version_is_written_is_new_afterwards(
    loop: Loop, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(loop, 30, "a")
    real = loop.store.put

    def put(key: str, folder: Path) -> Any:
        feed(loop, 7, "a")
        return real(key, folder)

    monkeypatch.setattr(loop.store, "put", put)
    made = frozen(loop)
    loop.ledger.add(Run(id="r", loop="l", state=RunState.QUEUED, why="", dataset=made.id), by="run", because="")
    assert dataset.latest(loop).new == 7


def test_the_same_content_is_stored_once(loop: Loop, feed: Feed) -> None:
    feed(loop, 30, "a")
    first = frozen(loop)
    useless = [collect.admit(loop, {"input": {}, "label": "a", "weight": 0}, origin="t", id=f"u{i}") for i in range(9)]
    loop.ledger.append("l", [s for s in useless if s.side == "train"])
    second = frozen(loop)
    assert (first.key, first.version, second.version) == (second.key, 1, 2)
    assert len(loop.store.list("datasets")) == 1


def test_nothing_is_left_lying_about(loop: Loop, feed: Feed, time: Any) -> None:
    left = loop.state / "work" / "freeze-dead"
    left.mkdir(parents=True)
    feed(loop, 30, "a")
    time.at = datetime.now(UTC)
    frozen(loop)
    assert left.is_dir()  # its owner may be at work
    time.on(days=2)
    feed(loop, 5, "a")
    frozen(loop)
    assert not list((loop.state / "work").iterdir())
