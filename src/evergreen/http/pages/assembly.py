"""The two large pages, put together from their parts: one loop, one model. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evergreen.core.ports import Tally
from evergreen.core.records import Model, Reject, Upload
from evergreen.core.states import ModelState, UploadState
from evergreen.http.pages import charts, corridor, drift, experiments, views, words
from evergreen.http.pages.experiments import ExperimentView
from evergreen.http.pages.figures import Comparison, Judged, comparison, judged, scale_of
from evergreen.http.pages.history import Line, line
from evergreen.http.pages.reading import Facts, Lineage
from evergreen.http.pages.reports import Report
from evergreen.http.pages.words import Moment, Scale
from evergreen.stages import collect

#: A phone's chart shows this many versions.
FEW = 9
#: Details of a training that other parts of the page show already.
_SHOWN = ("size_bytes", "latency_ms", "n_train", "n_holdout", "evaluation", "seconds")
#: Words in names of such details that are written otherwise.
_SPELT = {"n": "number of", "onnx": "ONNX", "coreml": "CoreML", "digest": "digest of the files", "ms": "milliseconds"}


@dataclass(frozen=True)
class Row:
    """One version in the table of models."""

    model: Judged
    interval: Markup


@dataclass(frozen=True)
class Refused:
    """A row in quarantine."""

    where: str
    origin: str
    reason: str
    raw: str
    at: Moment | None


@dataclass(frozen=True)
class Sent:
    """A model that a device sent in."""

    id: str
    name: str
    state: str
    kind: str  #: the shape beside it
    why: str
    score: str
    size: str
    at: Moment | None


@dataclass(frozen=True)
class LoopPage:
    """Everything a loop's page shows."""

    head: views.Summary
    corridor: Sequence[corridor.Stop]
    metric: str
    wide: Markup
    narrow: Markup
    rollout: views.Rollout | None
    traffic: Sequence[views.Traffic]
    rows: Sequence[Row]
    more_rows: int
    unlabelled: int
    pending: int
    rejects: Sequence[Refused]
    lines: Sequence[Line]
    older: int | None  #: the seq to go on from
    back: str  #: what rolling back would do; empty if there is nothing to go back to
    drift: drift.Drift | None
    min_size: int
    experiment: ExperimentView | None
    uploads: Sequence[Sent]


def page(facts: Facts, limit: int | None, *, raw: bool) -> LoopPage:
    """Put a loop's page together; `limit` rows of models, raw rows only if `raw`."""
    metric = facts.config.gate.metric
    scale = scale_of(facts.models, metric)
    drawn, name = views.points(facts), words.metric(metric).capitalize()
    shown = facts.models[:limit]
    return LoopPage(
        head=views.summary(facts),
        corridor=corridor.corridor(facts),
        metric=name,
        wide=charts.versions(drawn, name, scale),
        narrow=charts.versions(drawn[-FEW:], name, scale, 342, 230),
        rollout=views.rollout(facts),
        traffic=_traffic(facts),
        rows=_rows(shown, facts, scale),
        more_rows=len(facts.models) - len(shown),
        unlabelled=facts.counts.unlabelled,
        pending=facts.counts.pending,
        rejects=[_refused(r, facts, raw=raw) for r in facts.rejects],
        lines=[line(e, facts) for e in facts.events],
        older=facts.events[-1].seq if facts.older else None,
        back=_back(facts),
        drift=drift.part(facts.drift, facts.now) if facts.champion else None,
        min_size=facts.config.trigger.min_size,
        experiment=experiments.view(facts),
        uploads=[_sent(u, facts) for u in facts.uploads],
    )


def _traffic(facts: Facts) -> Sequence[views.Traffic]:
    m = facts.champion
    return [views.traffic(m, "champion", facts.tallies.get(m.id, Tally()))] if m else []


def _rows(shown: Sequence[Model], facts: Facts, scale: Scale) -> list[Row]:
    metric = facts.config.gate.metric
    found = [judged(m, facts, scale) for m in shown]
    ends = [
        f for j, m in zip(found, shown, strict=True) for f in (j.low, j.high, m.scores.get(metric)) if f is not None
    ]
    rows = []
    for j, m in zip(found, shown, strict=True):
        picture = Markup("")
        if metric in m.scores:
            point = charts.Point(j.score, m.scores[metric], j.low, j.high, views.kind(m.state))
            picture = charts.interval(point, min(ends), max(ends))
        rows.append(Row(j, picture))
    return rows


def _refused(r: Reject, facts: Facts, *, raw: bool) -> Refused:
    return Refused(r.where, r.origin, r.reason, words.cut(r.raw, 160) if raw else "", words.moment(r.at, facts.now))


_SENT = {
    UploadState.PENDING: "candidate",
    UploadState.PROCESSING: "running",
    UploadState.INCORPORATED: "passed",
    UploadState.FAILED: "rejected",
}


def _sent(u: Upload, facts: Facts) -> Sent:
    metric = facts.config.gate.metric
    why = collect.why(u)
    if u.state is UploadState.PROCESSING:
        why = "a training tries it now"
    elif u.state is UploadState.INCORPORATED:
        of = next((words.version(m.version) for m in facts.models if m.id == u.model), "an older version")
        why = f"its vote weighs {u.weight or 0:.3g} in {of}"
    return Sent(
        id=u.id,
        name=words.cut(u.name, 60),
        state=str(u.state),
        kind=_SENT[u.state],
        why=why,
        score=f"{words.metric(metric)} {words.plain(u.scores[metric])}" if metric in u.scores else "",
        size=words.size(u.size),
        at=words.moment(u.at, facts.now),
    )


def _back(facts: Facts) -> str:
    now, coming = facts.champion, facts.coming
    if now is not None and coming is not None:
        return (
            f"Takes {words.version(coming.version)} out of the traffic; {words.version(now.version)} goes on answering."
        )
    retired = [m for m in facts.models if m.state is ModelState.RETIRED]
    if now is None or not retired:
        return ""
    former = max(retired, key=lambda m: (m.since is not None, m.since or m.at, m.seq))
    return f"Takes {words.version(now.version)} back; {words.version(former.version)} answers again."


@dataclass(frozen=True)
class ModelPage:
    """Everything a model's page shows."""

    loop: str
    recipe: str
    model: Judged
    share: str
    verdict: str
    outcome: str
    comparison: Comparison
    rival: int | None
    run: str
    why: str
    by: str
    took: str
    started: Moment | None
    dataset: str
    digest: str
    details: Sequence[tuple[str, str]]
    report: Report


def model_page(m: Model, facts: Facts, lineage: Lineage, report: Report) -> ModelPage:
    """Put a model's page together."""
    metric = facts.config.gate.metric
    run, data = lineage.run, lineage.dataset
    took = words.span(run.ended - run.started) if run and run.started and run.ended else "–"
    return ModelPage(
        loop=facts.name,
        recipe=facts.config.recipe.use,
        model=judged(m, facts, scale_of([m, *facts.models], metric)),
        share=words.whole_percent(m.share) if m.share else "",
        verdict=str(m.verdict.get("because") or ""),
        outcome=_OUTCOMES.get(str(m.verdict.get("outcome")), "not judged yet"),
        comparison=comparison(m, metric),
        rival=lineage.base.version if lineage.base else None,
        run=run.id[:12] if run else "–",
        why=run.why if run else "",
        by=run.by if run else "",
        took=took,
        started=words.moment(run.started, facts.now) if run else None,
        dataset=_dataset(lineage),
        digest=data.digest[:16] if data else "",
        details=_details(m.details),
        report=report,
    )


_OUTCOMES = {
    "promote": "let through",
    "reject": "turned away",
    "inconclusive": "could not be told",
    "not_comparable": "could not be compared",
}


def _dataset(lineage: Lineage) -> str:
    data = lineage.dataset
    if data is None:
        return "–"
    return (
        f"{words.version(data.version)}: {words.count(data.train)} to learn from, {words.count(data.holdout)} held out"
    )


def _details(found: Mapping[str, object]) -> list[tuple[str, str]]:
    shown = []
    for name, value in found.items():
        if name in _SHOWN or not isinstance(value, str | int | float | bool):
            continue
        text = words.signed(f"{value:,.4g}") if isinstance(value, float) else words.plain(value)
        said = " ".join(_SPELT.get(word, word) for word in words.metric(name).split(" "))
        shown.append((said[:1].upper() + said[1:], words.cut(text, 20 if name == "digest" else 120)))
    return shown
