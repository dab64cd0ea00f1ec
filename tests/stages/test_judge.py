"""The gate as a stage: what it does with a champion that changed, and with figures that are none."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from evergreen import engine
from evergreen.core.config import GateConfig
from evergreen.core.loop import Loop
from evergreen.core.records import Event, Model, Run
from evergreen.core.states import ModelState
from evergreen.stages import dataset, gate, run
from evergreen.stages.gate.rules import Case, decide
from evergreen.stages.gate.statistics import bootstrap, minimum_detectable

Feed = Callable[..., None]


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_is_that_of_scipy_for_skewed_figures(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the tabular extra")
    rng = random.Random(seed)
    values = [rng.expovariate(1) * (-1 if seed % 2 else 1) for _ in range(40)]
    theirs = stats.bootstrap((values,), lambda v, axis: v.mean(axis=axis), n_resamples=9999, rng=1).confidence_interval
    mine = bootstrap(values, 0.95)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.06)


@pytest.mark.parametrize("confidence", [0.95, 0.9999999])
def test_one_row_unlike_all_others_has_an_interval_too(confidence: float) -> None:
    for odd in (-1.0, 1.0):
        interval = bootstrap([0.0] * 2000 + [odd], confidence)
        assert min(0.0, odd) <= interval.low <= interval.mean <= interval.high <= max(0.0, odd)


def test_one_row_shows_no_difference() -> None:
    assert minimum_detectable([1.0], 0.95) is None


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["candidate", "champion"])
def test_what_is_not_a_number_never_passes(figure: float, side: str) -> None:
    scores: dict[str, Any] = {"candidate": {"accuracy": [1.0] * 40}, "champion": {"accuracy": [0.0] * 40}}
    scores[side] = {"accuracy": [1.0] * 39 + [figure]}
    verdict = decide(GateConfig(), Case(**scores, rival=1))
    assert (verdict.outcome, verdict.because) == ("reject", "a figure of accuracy is not a number")


def test_a_metric_that_nobody_measured_lets_nobody_through() -> None:
    verdict = decide(GateConfig(metric="f1"), Case(candidate={"accuracy": [1.0] * 40}))
    assert verdict.outcome == "reject"
    assert verdict.because == "no f1 was measured, and it is to decide; there is: accuracy"


def test_one_held_out_row_can_be_judged_by(open_loop: Callable[..., Loop], feed: Feed) -> None:
    loop = open_loop(gate="min_rows = 1\nmargin = 1.0", trigger="min_new = 5")
    feed(loop, 60, "a")
    engine.tick(loop)
    hold_back(loop)
    feed(loop, 5, "a")
    engine.tick(loop)
    assert [m.verdict["outcome"] for m in loop.ledger.find(Model, "l")] == ["promote", "promote"]


def hold_back(loop: Loop) -> None:
    object.__setattr__(loop.config.dataset, "max_holdout", 1)


def overtaken(loop: Loop, feed: Feed) -> None:
    """Train v3 against v1, make v2 champion meanwhile."""
    feed(loop, 60, "a")
    engine.tick(loop)
    engine.ask(loop, by="ann", why="to have another", overrides={"answer": "b"})
    engine.tick(loop)
    asked = engine.ask(loop, by="ann", why="to see", overrides={"sleep_s": 0.01})
    run.queue(loop, dataset.freeze(loop, asked), asked)
    engine.promote(loop, 2, by="bob", why="I know better", force=True)
    run.start(loop)
    run.poll(loop)


def test_a_candidate_that_was_measured_against_another_champion_is_trained_again_once(loop: Loop, feed: Feed) -> None:
    overtaken(loop, feed)
    gate.judge(loop)
    v3 = loop.ledger.find(Model, "l")[-1]
    assert (v3.state, v3.verdict["outcome"]) == (ModelState.UNDECIDED, "not_comparable")
    again = loop.ledger.find(Run, "l")[-1]
    assert (again.state, again.by, again.overrides) == ("requested", "gate", {"sleep_s": 0.01})
    assert again.why == "v2 became champion while v3 was trained"

    run.queue(loop, dataset.freeze(loop, again), again)
    engine.promote(loop, 1, by="bob", why="back again")  # once more
    for _ in range(4):
        engine.tick(loop)
    runs, models = loop.ledger.find(Run, "l"), loop.ledger.find(Model, "l")
    assert (len(runs), len(models)) == (4, 4)
    assert models[-1].verdict["outcome"] == "not_comparable"


def test_a_training_that_waits_already_is_not_asked_for_again(loop: Loop, feed: Feed) -> None:
    overtaken(loop, feed)
    engine.ask(loop, by="ann", why="another")
    gate.judge(loop)
    assert [r.by for r in loop.ledger.find(Run, "l")][-1] == "ann"
    assert [e.what for e in loop.ledger.find(Event, "l")].count("added") > 0
