"""Pages: what they say of records, and that it can be read."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import evergreen.http.pages
from evergreen.core import plugins
from evergreen.core.config import LoopConfig, Use
from evergreen.core.ports import Counts, Tally
from evergreen.core.records import Dataset, Event, Model, Reject, Run
from evergreen.core.states import ModelState, RunState
from evergreen.http.pages import assembly, corridor, figures, history, reading, reports, views, words
from evergreen.http.pages.reading import Facts
from evergreen.http.pages.words import Scale

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATIC = Path(evergreen.http.pages.__file__).parent.parent / "static"
NARROW = "\u202f"


def ago(**kw: float) -> datetime:
    return NOW - timedelta(**kw)


def model(version: int, state: ModelState, score: float = 0.9, **kw: Any) -> Model:
    figures = {"metric": "accuracy", "interval": [score - 0.01, score + 0.01], "n": 900}
    about = {"scores": {"accuracy": score}, "verdict": {"outcome": "promote", "because": "better", "figures": figures}}
    return Model(id=f"m{version}", loop="a", state=state, version=version, key="k", at=ago(days=1), **(about | kw))


def facts(**kw: Any) -> Facts:
    config = LoopConfig.model_validate({"recipe": {"use": "tabular"}, "trigger": {"min_new": 100, "min_size": 50}})
    return Facts(name="a", config=config, now=NOW, **kw)


CHAMPION = model(3, ModelState.CHAMPION, since=ago(days=2))
CANARY = model(4, ModelState.CANARY, 0.91, share=0.1, since=ago(minutes=3))


@pytest.mark.parametrize(
    ("known", "tone", "said"),
    [
        ({}, "empty", "No model and no samples yet."),
        ({"counts": Counts(usable=7)}, "empty", "No model yet: 7 samples of at least 50 collected."),
        ({"champion": CHAMPION, "models": [CHAMPION]}, "calm", "Champion v3 has answered for 2 days."),
        ({"champion": CHAMPION, "coming": CANARY}, "watch", f"Canary v4 has answered 10{NARROW}% for 3 minutes."),
        ({"models": [model(5, ModelState.CANDIDATE)]}, "busy", "Candidate v5 is being judged."),
        (
            {"last_run": Run(id="r", loop="a", state=RunState.FAILED, why="", error="no memory")},
            "trouble",
            "The last training failed: no memory",
        ),
    ],
)
def test_a_loop_is_told_in_one_sentence(known: dict[str, Any], tone: str, said: str) -> None:
    assert views.sentence(facts(**known)) == (tone, said)


def test_a_run_in_progress_is_told_by_tenths_so_that_it_is_not_read_out_every_second() -> None:
    def at(step: object) -> Any:
        progress = {"phase": "fit", "step": step, "total": 20, "metrics": {"loss": 0.25, "odd": "text"}}
        run = Run(id="r", loop="a", state=RunState.RUNNING, why="asked", started=ago(seconds=90), progress=progress)
        return views.working(facts(runs=[run]))

    assert at(8).said == at(9).said == f"Training: 40{NARROW}% done."
    assert at(9).share == 0.45
    assert at(9).elapsed == "1 minute 30 seconds"
    assert at(9).metrics == [("loss", "0.25")]
    assert at("what").share == 0


def test_progress_may_be_missing() -> None:
    run = Run(id="r", loop="a", state=RunState.RUNNING, why="asked")
    seen = views.working(facts(runs=[run]))
    assert seen is not None
    assert (seen.share, seen.phase, seen.elapsed) == (None, "", "")


def test_the_running_training_goes_before_the_one_that_waits() -> None:
    runs = [Run(id=s, loop="a", state=s, why="") for s in (RunState.REQUESTED, RunState.RUNNING)]
    summary = views.summary(facts(runs=runs))
    assert summary.working is not None
    assert (summary.working.id, summary.waiting) == ("running", 1)


@pytest.mark.parametrize(
    ("known", "where"),
    [
        ({}, "collect"),
        ({"champion": CHAMPION}, "serve"),
        ({"champion": CHAMPION, "coming": CANARY}, "rollout"),
        ({"models": [model(5, ModelState.CANDIDATE)]}, "gate"),
        ({"runs": [Run(id="r", loop="a", state=RunState.QUEUED, why="")], "coming": CANARY}, "run"),
        ({"runs": [Run(id="r", loop="a", state=RunState.REQUESTED, why="")]}, "trigger"),
    ],
)
def test_one_of_eight_steps_is_current(known: dict[str, Any], where: str) -> None:
    stops = corridor.corridor(facts(**known))
    assert [s.name for s in stops] == ["collect", "dataset", "trigger", "run", "gate", "rollout", "serve", "observe"]
    assert [s.name for s in stops if s.current] == [where]


def test_a_rollout_shows_steps_time_left_and_both_tallies() -> None:
    tallies = {"m4": Tally(answered=990, failed=10, latency_ms=990 * 0.5), "m3": Tally()}
    seen = views.rollout(facts(champion=CHAMPION, coming=CANARY, tallies=tallies))
    assert seen is not None
    assert [(s.name, s.state) for s in seen.steps] == [
        ("shadow", "done"),
        (f"10{NARROW}%", "now"),
        (f"50{NARROW}%", "next"),
        ("champion", "next"),
    ]
    assert seen.left == "In this step: 7 minutes left."
    new, old = seen.traffic
    assert (new.version, new.failed_share, new.latency) == (4, f"1.00{NARROW}%", f"0.50{NARROW}ms")
    assert (old.version, old.failed_share, old.latency) == (3, "–", "–")


def test_every_figure_of_a_verdict_is_optional() -> None:
    bare = model(1, ModelState.CANDIDATE, verdict={}, scores={})
    seen = figures.judged(bare, facts(), Scale(True))
    assert (seen.score, seen.between, seen.reason, seen.size, seen.rows) == ("–", "", "", "–", "–")
    assert figures.comparison(bare, "accuracy").rows == []
    assert figures.findings(bare) == []


def test_figures_of_a_verdict_may_lie_flat_or_one_storey_below() -> None:
    flat = model(1, ModelState.PASSED, verdict={"n": 900, "mcnemar_p": 0.0001, "outcome": "promote"})
    assert [(name, figure) for name, figure, _ in figures.findings(flat)] == [
        ("Rows judged", "900"),
        ("McNemar p", "< 0.001"),
    ]
    assert figures.own_interval(CHAMPION) == (pytest.approx(0.89), pytest.approx(0.91))


def test_force_is_asked_for_where_the_gate_did_not_let_a_model_through() -> None:
    def seen(state: ModelState) -> Any:
        j = figures.judged(model(1, state), facts(), Scale(True))
        return j.promotable, j.wants_force

    assert seen(ModelState.CHAMPION)[0] is False
    assert seen(ModelState.RETIRED) == seen(ModelState.CANARY) == (True, False)
    assert seen(ModelState.REJECTED) == seen(ModelState.UNDECIDED) == seen(ModelState.ROLLED_BACK) == (True, True)


def test_rolling_back_says_beforehand_what_it_will_do() -> None:
    former = [model(v, ModelState.RETIRED, since=ago(days=9 - v)) for v in (2, 1)]
    both = facts(champion=CHAMPION, coming=CANARY, models=[CANARY, CHAMPION, *former])
    assert assembly.page(both, None, raw=True).back == "Takes v4 out of the traffic; v3 goes on answering."
    alone = facts(champion=CHAMPION, models=[CHAMPION, *former])
    assert assembly.page(alone, None, raw=True).back == "Takes v3 back; v2 answers again."
    assert assembly.page(facts(champion=CHAMPION, models=[CHAMPION]), None, raw=True).back == ""


def test_new_samples_are_those_after_the_newest_dataset() -> None:
    data = Dataset(id="d", loop="a", version=2, as_of=9, collected=40, train=32, holdout=8, digest="", key="")
    assert views.new_samples(facts(counts=Counts(usable=57), dataset=data)) == 17
    assert views.new_samples(facts(counts=Counts(usable=57))) == 57


def test_raw_rows_are_cut_and_only_for_reviewers() -> None:
    known = facts(rejects=[Reject(origin="log.csv", where="line 3", raw="x" * 900, reason="no label")])
    shown, kept = (assembly.page(known, None, raw=raw).rejects[0] for raw in (True, False))
    assert len(shown.raw) == 160
    assert kept.raw == ""


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"what": "moved", "subject": "model m4", "frm": "shadow", "to": "canary", "details": {"share": 0.5}}, f"v4 answers as canary at 50{NARROW}%"),
        ({"what": "moved", "subject": "model m4", "frm": "canary", "to": "champion"}, "v4 became champion"),
        ({"what": "moved", "subject": "model gone", "frm": "canary", "to": "champion"}, "A model became champion"),
        ({"what": "added", "subject": "run r1"}, "Training asked for"),
        ({"what": "moved", "subject": "run r1", "frm": "running", "to": "failed"}, "Training failed"),
        ({"what": "added", "subject": "dataset d"}, "Dataset frozen"),
        ({"what": "looked_and_waited", "subject": "a"}, "Looked and waited"),
    ],
)  # fmt: skip
def test_events_read_as_sentences(event: dict[str, Any], said: str) -> None:
    line = history.line(
        Event(id="e", loop="a", by="rollout", because="held", at=ago(hours=2), **event), facts(models=[CANARY])
    )
    assert (line.title, line.by, line.because) == (said, "rollout", "held")
    assert line.at is not None
    assert line.at.ago == "2 hours ago"


def test_older_history_is_found_without_reading_all_of_it(tmp_path: Path) -> None:
    ledger = plugins.make("ledgers", Use(use="memory"), home=tmp_path, state=tmp_path, now=lambda: NOW)
    for i in range(120):
        ledger.note("a" if i % 10 == 0 else "b", "seen", by="test", because=str(i))
    pages, before = [], None
    while page := reading.history(ledger, "a", before, 5):
        pages.append([e.because for e in page])
        before = page[-1].seq
    assert pages == [["110", "100", "90", "80", "70"], ["60", "50", "40", "30", "20"], ["10", "0"]]


def test_a_report_becomes_tables_and_what_is_not_understood_is_left_out() -> None:
    seen = reports.view(
        {
            "rows": 1204,
            "baselines": {"guess": 0.4},
            "per_class": {"edge": {"n": 9, "recall": 0.5, "f1": None}},
            "confusion": {"labels": ["a", "b"], "matrix": [[9, 1], [0, 10]]},
            "importance": {"cpu": 0.1, "battery": 0.2, "odd": "text"},
            "calibration": [1, 2],
        }
    )
    assert seen.facts == [("Rows", "1,204"), ("Baselines: guess", f"40.0{NARROW}%")]
    assert (seen.columns, seen.per_class) == (["n", "recall", "f1"], [("edge", ["9", f"50.0{NARROW}%", "–"])])
    assert [(c.n, c.heat, c.right) for c in seen.matrix[0][1]] == [("9", 9, True), ("1", 1, False)]
    assert [name for name, _, _ in seen.importance] == ["battery", "cpu"]


@pytest.mark.parametrize(
    "odd",
    [
        {"confusion": {"labels": ["a"], "matrix": [[1, 2]]}},
        {"confusion": "x"},
        {"per_class": "x"},
        {"importance": 4},
        {"importance": [1, "ab"]},
        {"confusion": {"labels": "ab", "matrix": "ab"}},
    ],
)
def test_odd_reports_do_no_harm(odd: dict[str, Any]) -> None:
    seen = reports.view(odd, "as it was written")
    assert [*seen.per_class, *seen.matrix, *seen.importance] == []
    assert seen.text == "<p>as it was written</p>"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (59, "59 seconds ago"),
        (61, "1 minute ago"),
        (7200, "2 hours ago"),
        (200_000, "2 days ago"),
        (-5, "just now"),
    ],
)
def test_times_are_told_from_now(seconds: int, said: str) -> None:
    seen = words.moment(NOW - timedelta(seconds=seconds), NOW)
    assert seen is not None
    assert seen.ago == said
    assert "2026" in seen.exact


def test_a_canary_without_a_champion_can_be_shown() -> None:
    alone = facts(coming=replace(CANARY, since=None), models=[CANARY])
    assert views.rollout(alone) is not None
    assert assembly.page(alone, None, raw=True).back == ""


def test_colours_keep_their_contrast_in_light_and_dark() -> None:
    css = (STATIC / "evergreen.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in css.split("prefers-color-scheme: dark", 1)
    )
    pairs = [(text, on) for text in ("ink", "soft", "green", "rust") for on in ("ground", "paper")]
    pairs += [(c, f"{c}-wash") for c in ("green", "amber", "rust", "slate")] + [("on-green", "green")]
    for theme in (light, dark):
        for text, on in pairs:
            assert contrast(theme[text], theme[on]) >= 4.5, (text, on)
        assert contrast(theme["edge"], theme["paper"]) >= 3


def contrast(a: str, b: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2)."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
