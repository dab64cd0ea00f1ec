"""What is known of one model, ready to show: scores, the gate's verdict, size, age, what may be done with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from evergreen.core.records import Json, Model
from evergreen.core.states import ModelState
from evergreen.http.pages import charts, words
from evergreen.http.pages.reading import Facts
from evergreen.http.pages.words import Moment, Scale
from evergreen.stages import rollout


@dataclass(frozen=True)
class Judged:
    """One model version in figures and words."""

    version: int
    state: str
    metric: str
    score: str
    low: float | None
    high: float | None
    between: str  #: the interval in words, or nothing
    reason: str
    rows: str
    size: str
    latency: str
    made: Moment | None
    since: Moment | None
    promotable: bool
    wants_force: bool  #: the gate did not let it through, or it was taken back


def verdict(m: Model) -> Mapping[str, Json]:
    """Return the gate's figures, whether they lie in the verdict or one storey below."""
    inner = m.verdict.get("figures")
    return {**m.verdict, **inner} if isinstance(inner, Mapping) else m.verdict


def number(found: Mapping[str, Any], key: str) -> float | None:
    """Return a figure if it is there and a finite number."""
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def scale_of(models: Iterable[Model], metric: str) -> Scale:
    """Choose how a metric is written, the same for every version."""
    return Scale.of(s[metric] for m in models for s in (m.scores, m.rival_scores) if metric in s)


def own_interval(m: Model) -> tuple[float | None, float | None]:
    """Return the interval around the model's own deciding score."""
    pair = verdict(m).get("interval")
    if isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(x, int | float) for x in pair):
        return float(pair[0]), float(pair[1])
    return None, None


def judged(m: Model, facts: Facts, scale: Scale) -> Judged:
    """Describe a version for a table's row, a card or a head."""
    metric = facts.config.gate.metric
    low, high = own_interval(m)
    return Judged(
        version=m.version,
        state=str(m.state),
        metric=words.metric(metric),
        score=scale.text(m.scores[metric]) if metric in m.scores else "–",
        low=low,
        high=high,
        between=scale.span(low, high) if low is not None and high is not None and low < high else "",
        reason=str(verdict(m).get("because") or ""),
        rows=rows_learned(m, facts),
        size=size(m),
        latency=latency(m),
        made=words.moment(m.at, facts.now),
        since=words.moment(m.since or m.at, facts.now),
        promotable=m.state is not ModelState.CHAMPION,
        wants_force=m.state not in rollout.WELCOME,
    )


def rows_learned(m: Model, facts: Facts) -> str:
    """Say how many rows a model was trained on."""
    n = number(m.details, "n_train")
    if n is None and m.dataset is not None and m.dataset in facts.datasets:
        n = facts.datasets[m.dataset].train
    return words.count(int(n)) if n is not None else "–"


def size(m: Model) -> str:
    """Write the artifact's size."""
    n = number(m.details, "size_bytes")
    if n is None and (mega := number(verdict(m), "size_mb")) is not None:
        n = mega * 1e6
    return words.size(n) if n is not None else "–"


def latency(m: Model) -> str:
    """Write the time an answer took when the gate measured it."""
    ms = number(m.details, "latency_ms")
    ms = number(verdict(m), "latency_ms") if ms is None else ms
    return words.milliseconds(ms) if ms is not None else "–"


@dataclass(frozen=True)
class Compared:
    """One metric of a candidate beside the champion's, on the same rows."""

    metric: str
    candidate: str
    champion: str
    difference: str
    between: str
    decisive: bool


@dataclass(frozen=True)
class Comparison:
    """A candidate beside the champion."""

    rows: Sequence[Compared]
    wide: Markup
    narrow: Markup
    figures: Sequence[tuple[str, str, str]]  #: name, figure, what it means


def comparison(m: Model, metric: str) -> Comparison:
    """Set a model's scores beside those of the champion of its time."""
    found = verdict(m)
    deciding = str(found.get("metric") or metric)
    names = sorted(m.scores, key=lambda k: (k != deciding, k))
    rows, drawn = [], []
    for name in names:
        mine, theirs = m.scores[name], m.rival_scores.get(name)
        scale = Scale.of(x for x in (mine, theirs) if x is not None)
        low, high = (number(found, "low"), number(found, "high")) if name == deciding else (None, None)
        gap = mine - theirs if theirs is not None else None
        between = charts.between(low, high, scale)
        rows.append(
            Compared(
                words.metric(name), scale.text(mine), scale.text(theirs) if theirs is not None else "–",
                scale.difference(gap) if gap is not None else "–", between, name == deciding,
            )
        )  # fmt: skip
        if gap is not None and scale.percent:
            drawn.append(charts.Difference(words.metric(name), gap, low, high, name == deciding))
    wide, narrow = (charts.forest(drawn, Scale(True), number(found, "margin"), width) for width in (640, 340))
    return Comparison(rows, wide, narrow, findings(m))


def findings(m: Model) -> list[tuple[str, str, str]]:
    """Explain the gate's figures, one by one, leaving out what it did not measure."""
    found = verdict(m)
    n = partial(number, found)
    scale = Scale.of([*m.scores.values(), *m.rival_scores.values()])
    table: list[tuple[str, float | None, Any, str]] = [
        ("Rows judged", n("n"), lambda x: words.count(int(x)), "held out, never trained on"),
        ("Margin", n("margin"), scale.difference, _RULES.get(str(found.get("rule")), "the difference that does not matter")),
        ("McNemar p", n("mcnemar_p"), lambda x: "< 0.001" if x < 0.001 else f"{x:.3f}", "chance of such disagreement between equals"),
        ("Detectable effect", n("minimum_detectable"), scale.difference, "smallest difference these rows could show"),
        ("Answer time", n("latency_ms"), words.milliseconds, "mean, one input at a time"),
        ("Artifact", n("size_mb"), lambda x: words.size(x * 1e6), "on disk"),
    ]  # fmt: skip
    return [(name, write(value).lstrip("+"), why) for name, value, write, why in table if value is not None]


_RULES = {
    "non_inferiority": "how much worse it may be",
    "superiority": "how much better it must be",
}
