"""What is laid into the folder: versions, reports, files for phones, the state; and the rule by which others decide."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from backdoor_kit import Time, feed, opened, said, tick

from evergreen import engine
from evergreen.core.errors import NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Model
from evergreen.core.states import ModelState
from evergreen.templates.backdoor import folder, phone, publishing, report, versions


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(autouse=True)
def made_up_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's file for phones is none; what becomes of true ones is tested where they are made."""
    told = [{"file": "intent.mlmodel", "format": "coreml", "agree": 1.0, "rows": 12}]
    monkeypatch.setattr("evergreen.job.exports.check", lambda *_: told)


def model(n: int, at: datetime | None) -> Model:
    return Model(id=str(n), loop="intent", state=ModelState.RETIRED, version=n, key=f"models/{n}", at=at)


def test_versions_are_seconds_and_never_the_same() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    second = int(at.timestamp())
    models = [model(1, at), model(2, at), model(3, at + timedelta(milliseconds=900)), model(4, at + timedelta(hours=1))]
    named = versions.names(models)
    assert list(named.values()) == [f"1.0.{second + n}" for n in (0, 1, 2)] + [f"1.0.{second + 3600}"]
    assert versions.names(models[:2]) == {"1": named["1"], "2": named["2"]}


def train(loop: Loop, label: str, first: int = 0) -> None:
    feed(loop, 40, label, first)
    engine.ask(loop, by="test", why=f"more {label}", force=True)
    tick(loop)


@pytest.mark.parametrize("ledger", ["memory", "sql"])
def test_a_training_leaves_summary_report_and_files(tmp_path: Path, time: Time, ledger: str) -> None:
    with opened(tmp_path, time, ledger=ledger, use="backdoor_kit:Phone", rollout="keep = 2") as loop:
        publishing.look(loop, "https://ai.example")
        assert said(loop, folder.STATE)["model"] is None
        with pytest.raises(NotFound):
            loop.store.read(folder.LATEST)
        for n in range(5):
            train(loop, "play", 40 * n)
            time.on(seconds=10)
            publishing.look(loop, "https://ai.example")
        known = versions.all_of(loop)
        names = [name for name, _ in known]
        latest, place = said(loop, folder.LATEST), f"backdoor/models/{names[-1]}"
        assert latest["version"] == names[-1] == said(loop, folder.STATE)["model"]
        assert latest["files"] == [f"{place}/{name}" for name in ("intent.mlmodel", "report.md", "summary.json")]
        assert loop.store.read(f"{place}/intent.mlmodel") == b'CoreML "play"'
        assert said(loop, f"{place}/model_info.json")["artifact"] == known[-1][1].key
        # the report tells what changed, and who contributed
        summary = said(loop, f"backdoor/models/{names[1]}/summary.json")
        assert summary["previous"] == names[0]
        assert summary["change"] == {"accuracy": 0.0}
        assert [(one["status"], one["why"]) for one in summary["user_models"]] == [
            ("incorporated", "it helped"),
            ("failed", "no help | at all"),
        ]
        text = loop.store.read(f"backdoor/models/{names[1]}/report.md").decode()
        for words in (
            f"previous ({names[0]})",
            "+0.0000",
            "1 of 2",
            "no help \\| at all",
            "100 % of 12 rows",
            "Judged on",
        ):
            assert words in text
        assert "no previous model" in loop.store.read(f"backdoor/models/{names[0]}/report.md").decode()
        # the files of old versions are gone, what was written about them is not
        listed = said(loop, folder.VERSIONS)["versions"]
        kept = [True, True, True, False, False]
        assert [(v["version"], v["kept"]) for v in listed] == list(zip(names[::-1], kept, strict=True))
        for name, stays in zip(names[::-1], kept, strict=True):
            there = {key.rpartition("/")[2] for key in loop.store.list(f"backdoor/models/{name}")}
            assert there == {"summary.json", "report.md", "model_info.json", *(["intent.mlmodel"] if stays else [])}
        # and nothing is written without need
        before = {key: loop.store.read(key) for key in loop.store.list("backdoor")}
        publishing.look(loop, "https://ai.example")
        assert {key: loop.store.read(key) for key in loop.store.list("backdoor")} == before


def test_the_file_for_phones_is_fetched_once_and_its_absence_explained(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path / "a", time, use="backdoor_kit:Phone") as loop:
        train(loop, "play")
        ((name, model),) = versions.all_of(loop)
        export = phone.of(loop, name, model)
        assert (export.name, export.path.read_bytes(), export.size) == ("intent.mlmodel", b'CoreML "play"', 13)
        loop.store.delete(model.key)
        assert phone.of(loop, name, model) == export
        phone.forget(loop, model)
        with pytest.raises(NotFound, match="not kept"):
            phone.of(loop, name, model)
    with opened(tmp_path / "b", time) as loop:
        train(loop, "play")
        ((name, model),) = versions.all_of(loop)
        with pytest.raises(NotFound, match="no file for phones: its training left none"):
            phone.of(loop, name, model)


STATE: dict[str, Any] = {
    "interactions": 400,
    "new_interactions": 0,
    "pending_models": 0,
    "last_look": "2026-01-01T00:00:00+00:00",
    "latest_job": {"status": "completed"},
    "thresholds": {"auto": True, "pending_models": 3, "min_new": 100, "every_hours": 12.0, "min_size": 50},
}


@pytest.mark.parametrize(
    ("hours", "changes", "reason"),
    [
        (1, {}, None),
        (1, {"new_interactions": 99, "pending_models": 2}, None),
        (1, {"new_interactions": 100}, "100 new samples"),
        (1, {"pending_models": 3}, "3 uploaded models pending"),
        (12, {}, None),
        (12, {"new_interactions": 1}, "1 new samples at the interval"),
        (12, {"pending_models": 1}, "1 uploaded model pending at the interval"),
        (12, {"new_interactions": 40, "interactions": 40}, None),
        (12, {"new_interactions": 100, "latest_job": {"status": "training"}}, None),
        (12, {"new_interactions": 100, "latest_job": {"status": "failed"}}, "100 new samples"),
        (12, {"new_interactions": 60, "interactions": 60, "last_look": None, "latest_job": None}, "60 new samples"),
    ],
)
def test_others_decide_by_the_same_rule(hours: float, changes: dict[str, Any], reason: str | None) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    found = folder.due({**STATE, **changes}, now)
    assert found == reason if reason is None or found is None else found.startswith(reason)


def test_the_state_is_enough_to_decide_by(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path, time, trigger='min_new = 100\nevery = "12h"\nmin_size = 50\npending_models = 3') as loop:
        tick(loop)  # the interval has come round once, in vain
        feed(loop, 99)
        publishing.look(loop)
        assert folder.due(said(loop, folder.STATE), time()) is None
        feed(loop, 1, first=99)
        publishing.look(loop)
        assert folder.due(said(loop, folder.STATE), time()) == "100 new samples"
        tick(loop)
        publishing.look(loop)
        state = said(loop, folder.STATE)
        assert folder.due(state, time()) is None
        assert (state["new_interactions"], state["latest_job"]["status"]) == (0, "completed")
        assert state["thresholds"] == {**STATE["thresholds"]}


def test_a_report_without_figures_is_still_one(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path, time) as loop:
        train(loop, "play")
        ((name, model),) = versions.all_of(loop)
        bare = {**report.summary(loop, name, model), "scores": {}, "run": None, "dataset": None, "size_bytes": None}
        assert "Nothing was held out" in report.markdown(json.loads(json.dumps(bare, default=str)))
