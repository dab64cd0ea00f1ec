"""The gate in full, from a sample to a verdict: parts, golden cases, looks, probabilities, evidence of before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from evergreen import engine
from evergreen.core.loop import Loop
from evergreen.core.ports import Evidence
from evergreen.core.recipe import Predictor, Row, Scores
from evergreen.core.records import Event, Json, Model
from evergreen.core.states import ModelState
from evergreen.stages import collect, gate
from evergreen.stages.gate.report import markdown
from evergreen.testing.runner import Majority

Feed = Callable[..., None]
HERE = "test_gate_stage:Sure"


class Says:
    """Answers one label, and how sure it is."""

    def __init__(self, label: Json) -> None:
        self.label = label

    def predict(self, inputs: Sequence[Json]) -> Sequence[Json]:
        return [{"label": self.label, "probabilities": {self.label: 0.9, "else": 0.1}} for _ in inputs]

    def close(self) -> None:
        """Hold nothing."""


class Sure(Majority):
    """A `Majority` that is always 90 % sure."""

    def load(self, artifact: Path) -> Predictor:
        return Says(json.loads((artifact / "answer.json").read_text()))

    def decision(self, output: Json) -> Json:
        return output["label"]

    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        said = predictor.predict([row.input for row in rows])
        return {"accuracy": [float(one["label"] == row.label) for one, row in zip(said, rows, strict=True)]}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def send(loop: Loop, n: int, label: str, start: int, **more: Any) -> None:
    rows = [{"input": {"i": start + i, **more}, "label": label} for i in range(n)]
    loop.ledger.append("l", [collect.admit(loop, row, origin=more.get("device", "test")) for row in rows])


def verdicts(loop: Loop) -> list[Mapping[str, Any]]:
    return [model.verdict for model in loop.ledger.find(Model, "l")]


def train(loop: Loop, **overrides: Any) -> Mapping[str, Any]:
    engine.ask(loop, by="ann", why="to see", force=True, overrides=overrides)
    engine.tick(loop)
    return verdicts(loop)[-1]


def two_devices(open_loop: Callable[..., Loop], settings: str) -> Loop:
    loop = open_loop(recipe=HERE, gate=settings, trigger="auto = false", dataset='holdout = 0.5\nsplit = "time"')
    for i in range(40):  # the newest half of what came is held out: 120 rows of a phone, 80 of a watch
        send(loop, 6, "a", 1000 * i, device="phone")
        send(loop, 4, "b", 1000 * i + 500, device="watch")
    return loop


def test_a_part_that_is_worse_turns_away_and_the_report_says_which(open_loop: Callable[..., Loop]) -> None:
    settings = 'slices = ["device", "origin", "label"]\nmargin = 0.5\nslice_margin = 0.1'
    loop = two_devices(open_loop, settings)
    first = train(loop, answer="b")
    assert first["outcome"] == "promote"
    assert first["figures"]["calibration"]["candidate"]["ece"] == pytest.approx(0.5)
    second = train(loop, answer="a")  # better on the whole, hopeless on a watch
    assert second["outcome"] == "reject"
    assert "where device is watch (0.000 against 1.000 on 80 rows), and on 2 more parts" in second["because"]
    found = {(p["slice"], p["value"]): p for p in second["figures"]["slices"]}
    assert found["origin", "watch"]["harmed"]
    assert found["label", "a"]["difference"] == 1.0
    assert set(second["figures"]["calibration"]) == {"candidate", "champion"}
    said = markdown(loop.ledger.find(Model, "l")[-1])
    assert said.startswith("# l v2: turned away")
    assert "| device: watch | 80 | 0.0000 | 1.0000 | -1.0000 | " in said


def test_where_nothing_is_decided_the_report_says_what_can_be_done(open_loop: Callable[..., Loop]) -> None:
    loop = two_devices(open_loop, "margin = 0.001")
    train(loop, answer="a")
    assert train(loop, answer="a")["outcome"] == "inconclusive"
    said = markdown(loop.ledger.find(Model, "l")[-1])
    assert "The champion stays. More held-out rows can decide it; or you do: `evergreen promote l 2 --force" in said


def test_without_the_setting_no_origin_is_laid_down(open_loop: Callable[..., Loop], tmp_path: Path) -> None:
    loop = two_devices(open_loop, "")
    train(loop)
    (model,) = loop.ledger.find(Model, "l")
    loop.store.get(model.details["evaluation"], tmp_path / "evaluation")
    evidence = msgspec.json.decode((tmp_path / "evaluation" / "evidence.json").read_bytes(), type=Evidence)
    assert (dict(evidence.slices), list(evidence.groups), list(evidence.strata)) == ({}, [], [])
    assert evidence.sure["candidate"][0] == [0.9, 1.0, 0.9] or evidence.sure["candidate"][0] == (0.9, 1.0, 0.9)


def test_golden_cases_are_asked_where_it_would_serve(open_loop: Callable[..., Loop]) -> None:
    loop = two_devices(open_loop, 'golden = "golden.jsonl"\nmargin = 1.0\nslice_margin = 1.0')
    lines = [
        {"input": {"i": 1}, "expected": "a", "must": True, "name": "most"},
        {"input": {"i": 2}, "expected": "b"},
    ]
    (loop.home / "golden.jsonl").write_text("\n".join(map(json.dumps, lines)))
    passed = train(loop, answer="a")
    assert (passed["outcome"], passed["figures"]["golden_right"], passed["figures"]["golden_asked"]) == (
        "promote",
        1,
        2,
    )
    failed = train(loop, answer="b")
    assert failed["outcome"] == "reject"
    assert failed["because"] == 'golden case "most" must be answered a and was answered b'
    assert [g["right"] for g in failed["figures"]["golden"]] == [False, True]
    assert "| most | must | a | b | WRONG |" in markdown(loop.ledger.find(Model, "l")[-1])


def test_while_golden_cases_cannot_be_read_nobody_is_judged(open_loop: Callable[..., Loop]) -> None:
    loop = two_devices(open_loop, 'golden = "golden.jsonl"')
    assert train(loop) == {}
    engine.tick(loop)
    said = [e.because for e in loop.ledger.find(Event, "l") if e.what == "cannot judge"]
    assert said == ["v1 cannot be judged now: the golden cases golden.jsonl cannot be read: No such file or directory"]
    (loop.home / "golden.jsonl").write_text('{"input": {"i": 1}, "expected": "a"}')
    engine.tick(loop)
    assert verdicts(loop)[0]["outcome"] == "promote"


def test_looks_at_the_same_rows_are_counted_until_the_rows_are_others(open_loop: Callable[..., Loop]) -> None:
    loop = two_devices(open_loop, "looks = 2\nmargin = 1.0\nslice_margin = 1.0")
    seen = [train(loop)["figures"] for _ in range(4)]
    assert [figures["looks"] for figures in seen] == [0, 1, 2, 3]
    assert [len(figures["mind"]) for figures in seen] == [0, 0, 1, 1]
    assert "2 earlier candidates were judged on mostly the same 200 rows" in verdicts(loop)[2]["because"]
    send(loop, 20, "a", 90_000)
    assert train(loop)["figures"]["looks"] == 4  # a few more rows: still mostly the same
    send(loop, 900, "a", 100_000)
    assert train(loop)["figures"]["looks"] == 0


def test_probabilities_that_are_far_off_turn_away(open_loop: Callable[..., Loop]) -> None:
    loop = two_devices(open_loop, "max_ece = 0.2")
    verdict = train(loop)
    assert (verdict["outcome"], verdict["because"]) == (
        "reject",
        "its probabilities are 0.300 off on average, more than 0.2",
    )


def test_a_recipe_without_probabilities_cannot_keep_that_limit(open_loop: Callable[..., Loop], feed: Feed) -> None:
    loop = open_loop(gate="max_ece = 0.2")
    feed(loop, 60, "a")
    engine.tick(loop)
    (verdict,) = verdicts(loop)
    assert verdict["because"] == "no probabilities were measured, and 0.2 is the largest calibration error"


def test_evidence_of_before_is_still_read(loop: Loop, feed: Feed, tmp_path: Path) -> None:
    old = {"ids": ["a", "b"], "candidate": {"accuracy": [1.0, 1.0]}, "champion": {}}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "evidence.json").write_text(json.dumps(old))
    loop.store.put("evaluations/old/1", tmp_path / "old")
    feed(loop, 60, "a")
    engine.tick(loop)
    (model,) = loop.ledger.find(Model, "l")
    details = {**model.details, "evaluation": "evaluations/old/1"}
    candidate = Model(
        id="old", loop="l", state=ModelState.CANDIDATE, version=9, key=model.key, base=model.id, details=details
    )
    loop.ledger.add(candidate, by="test", because="made before")
    gate.judge(loop)
    verdict = loop.ledger.get(Model, "old").verdict
    assert (verdict["outcome"], verdict["figures"]["n"]) == ("not_comparable", 2)
