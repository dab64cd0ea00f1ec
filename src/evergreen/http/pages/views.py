"""Records to what the pages show: pure functions from facts to plain view data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from markupsafe import Markup

from evergreen.core.config import RolloutConfig
from evergreen.core.ports import Tally
from evergreen.core.records import Model, Run
from evergreen.core.states import ExperimentState, ModelState, RunState
from evergreen.http.pages import charts, words
from evergreen.http.pages.figures import Judged, judged, scale_of
from evergreen.http.pages.history import Line, line
from evergreen.http.pages.reading import Facts

Tone = Literal["calm", "busy", "watch", "trouble", "empty"]
_KINDS: dict[ModelState, charts.Kind] = {
    ModelState.CHAMPION: "champion",
    ModelState.RETIRED: "former",
    ModelState.PASSED: "coming",
    ModelState.SHADOW: "coming",
    ModelState.CANARY: "coming",
    ModelState.CANDIDATE: "coming",
}
#: States in words, for badges.
STATES = {ModelState.ROLLED_BACK: "rolled back"}


@dataclass(frozen=True)
class Working:
    """A run that is waiting or running."""

    id: str
    state: str
    running: bool
    phase: str
    step: int
    total: int
    share: float | None  #: 0 to 1; None while nobody knows
    elapsed: str
    where: str  #: the machine, where it is another
    left: str
    heard: str
    why: str
    by: str
    metrics: Sequence[tuple[str, str]]
    said: str  #: for the live region: coarse, so that it is not read out every second


@dataclass(frozen=True)
class Note:
    """Something that goes on beside, or is wrong."""

    kind: str  #: the shape before it
    text: str
    part: str  #: of the loop's page that tells more


@dataclass(frozen=True)
class Summary:
    """What is true of a loop at a glance."""

    name: str
    recipe: str
    tone: Tone
    sentence: str
    announce: str  #: the same without what changes by itself, for the live region
    champion: Judged | None
    collected: int
    new: int
    quarantined: int
    working: Working | None
    waiting: int  #: runs behind the one shown
    spark: Markup
    last: Line | None
    notes: Sequence[Note]


@dataclass(frozen=True)
class Traffic:
    """What one version in service has answered."""

    version: int
    role: str
    answered: int
    failed: int
    failed_share: str
    asked: str  #: answers, counted
    failures: str  #: failed ones, counted, and their share
    latency: str
    right: str
    score: str  #: the mean of outcomes that came as figures
    agrees: str  #: with the answer that was sent, where it was not heard


@dataclass(frozen=True)
class StepView:
    """One step of a rollout."""

    name: str
    state: Literal["done", "now", "next"]


@dataclass(frozen=True)
class Rollout:
    """A model on its way to become champion."""

    version: int
    state: str
    share: str
    steps: Sequence[StepView]
    left: str
    traffic: Sequence[Traffic]


def summary(facts: Facts) -> Summary:
    """Condense a loop into what its card and its page's head show."""
    tone, said = sentence(facts)
    scale = scale_of(facts.models, facts.config.gate.metric)
    first = working(facts)
    drawn = points(facts)[-16:]
    return Summary(
        name=facts.name,
        recipe=facts.config.recipe.use,
        tone=tone,
        sentence=said,
        announce=_announce(facts),
        champion=judged(facts.champion, facts, scale) if facts.champion else None,
        collected=facts.counts.usable,
        new=new_samples(facts),
        quarantined=facts.counts.quarantined,
        working=first,
        waiting=len(facts.runs) - 1 if first else 0,
        spark=charts.sparkline(drawn, words.metric(facts.config.gate.metric), scale) if len(drawn) > 1 else Markup(""),
        last=line(facts.events[0], facts) if facts.events else None,
        notes=notes(facts),
    )


def notes(facts: Facts) -> list[Note]:
    """Say what a glance must not miss: answers that fail, traffic that has changed, an experiment."""
    found = []
    if "failures" in facts.alarms:
        found.append(Note("failed", "Answers fail.", "rollout"))
    if "drift" in facts.alarms:
        found.append(Note("canary", "Live traffic has drifted.", "drift"))
    if facts.comparing is ExperimentState.FROZEN:
        found.append(Note("failed", "The experiment is frozen.", "experiment"))
    elif facts.comparing is not None:
        found.append(Note("running", "An experiment is running.", "experiment"))
    return found


def new_samples(facts: Facts) -> int:
    """Count usable samples that came after the newest dataset was frozen."""
    return max(facts.counts.usable - (facts.dataset.collected if facts.dataset else 0), 0)


def sentence(facts: Facts) -> tuple[Tone, str]:
    """Say in one sentence how a loop is, and in which tone."""
    run = working(facts)
    if run is not None:
        return "busy", run.said
    m = facts.coming
    if m is not None:
        return "watch", _on_the_way(m, facts)
    newest = facts.models[0] if facts.models else None
    if newest is not None and newest.state is ModelState.CANDIDATE:
        return "busy", f"Candidate {words.version(newest.version)} is being judged."
    if facts.last_run is not None and facts.last_run.state is RunState.FAILED:
        return "trouble", f"The last training failed: {words.cut(facts.last_run.error or 'no reason was given', 140)}"
    if facts.champion is not None:
        return "calm", f"Champion {words.version(facts.champion.version)} has answered {_since(facts.champion, facts)}."
    if facts.counts.usable:
        need = facts.config.trigger.min_size
        return (
            "empty",
            f"No model yet: {words.counted(facts.counts.usable, 'sample')} of at least {words.count(need)} collected.",
        )
    return "empty", "No model and no samples yet."


def _announce(facts: Facts) -> str:
    if run := working(facts):
        return run.said
    at = facts.coming or facts.champion
    return f"{words.version(at.version)} is {state_name(at.state)}{_at_share(at)}." if at else ""


def _at_share(m: Model) -> str:
    return f" at {words.whole_percent(m.share)}" if m.state is ModelState.CANARY else ""


def _on_the_way(m: Model, facts: Facts) -> str:
    name = words.version(m.version)
    if m.state is ModelState.CANARY:
        return f"Canary {name} has answered {words.whole_percent(m.share)} {_since(m, facts)}."
    if m.state is ModelState.SHADOW:
        return f"Shadow {name} has answered unheard {_since(m, facts)}."
    return f"{name} passed the gate and waits for its rollout."


def _since(m: Model, facts: Facts) -> str:
    since = m.since or m.at
    return f"for {words.span(facts.now - since)}" if since else "since it took over"


def working(facts: Facts) -> Working | None:
    """Describe the run in progress, or the one that waits."""
    order = {RunState.RUNNING: 0, RunState.QUEUED: 1, RunState.REQUESTED: 2}
    run = min(facts.runs, key=lambda r: order[r.state], default=None)
    if run is None:
        return None
    running = run.state is RunState.RUNNING
    step, total = _whole(run.progress.get("step")), _whole(run.progress.get("total"))
    share = min(step / total, 1.0) if running and total > 0 else None
    since = run.started or run.at
    metrics = run.progress.get("metrics")
    return Working(
        id=run.id,
        state=str(run.state),
        running=running,
        phase=words.cut(str(run.progress.get("phase") or ""), 60),
        step=step,
        total=total,
        share=share,
        elapsed=words.span(facts.now - since) if since else "",
        where=words.cut(str(run.progress.get("where") or ""), 60) if running else "",
        left=words.span(float(run.progress.get("left_s") or 0)) if running and run.progress.get("left_s") else "",
        heard=_heard(run, facts) if running else "",
        why=run.why,
        by=run.by,
        metrics=[(words.metric(str(k)), f"{v:,.4g}") for k, v in (metrics or {}).items() if isinstance(v, int | float)],
        said=_training(run, facts, share),
    )


def _heard(run: Run, facts: Facts) -> str:
    heard = run.progress.get("heard")
    return words.span(max(timedelta(0), facts.now - datetime.fromisoformat(heard))) if heard else ""


def _training(run: Run, facts: Facts, share: float | None) -> str:
    if run.state is RunState.REQUESTED:
        return "A training was asked for."
    if run.state is RunState.QUEUED:
        return "A training waits for its runner."
    data = facts.datasets.get(run.dataset or "")
    on = f" on dataset {words.version(data.version)}" if data else ""
    return f"Training{on}: {words.whole_percent(int(share * 10) / 10)} done." if share is not None else f"Training{on}."


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0


def points(facts: Facts) -> list[charts.Point]:
    """Return the deciding score of each version, oldest first."""
    metric = facts.config.gate.metric
    scale = scale_of(facts.models, metric)
    found = []
    for m in reversed(facts.models):
        if metric in m.scores:
            j = judged(m, facts, scale)
            kind = _KINDS.get(m.state, "refused")
            found.append(
                charts.Point(words.version(m.version), m.scores[metric], j.low, j.high, kind, state_name(m.state))
            )
    return found


def kind(state: ModelState) -> charts.Kind:
    """Return how charts draw a state; what was turned away or taken back is hollow."""
    return _KINDS.get(state, "refused")


def state_name(state: ModelState) -> str:
    """Write a state in words."""
    return STATES.get(state, str(state))


def rollout(facts: Facts) -> Rollout | None:
    """Describe the model on its way, step by step."""
    m = facts.coming
    if m is None:
        return None
    rules = facts.config.rollout
    started = m.state is not ModelState.PASSED
    shares = [step_name(s) for s in rules.steps]
    at = max((i for i, s in enumerate(rules.steps) if s <= m.share + 1e-9), default=0) if started else -1
    steps = [StepView(n, "done" if i < at else "now" if i == at else "next") for i, n in enumerate(shares)]
    both = [(m, state_name(m.state)), (facts.champion, "champion")]
    return Rollout(
        version=m.version,
        state=str(m.state),
        share=words.whole_percent(m.share),
        steps=steps,
        left=_left(m, rules, facts) if started else "It starts with the next turn.",
        traffic=[traffic(x, role, facts.tallies.get(x.id, Tally())) for x, role in both if x is not None],
    )


def step_name(share: float) -> str:
    """Name a step of a rollout by its share of the traffic."""
    return "shadow" if share == 0 else "champion" if share == 1 else words.whole_percent(share)


def _left(m: Model, rules: RolloutConfig, facts: Facts) -> str:
    left = (rules.hold - (facts.now - m.since)).total_seconds() if m.since else 0
    tally = facts.tallies.get(m.id, Tally())
    wants = [f"{words.span(left)} left"] if left > 0 else []
    if tally.answered < rules.min_answers:
        wants.append(f"{words.counted(rules.min_answers - tally.answered, 'answer')} wanted")
    if facts.evidence and not any(m.share < s < 1 for s in rules.steps):
        wants.append(f"evidence ({facts.evidence})")
    return f"In this step: {' and '.join(wants)}." if wants else "Ready for the next step."


def traffic(m: Model, role: str, tally: Tally) -> Traffic:
    """Sum up what one version has answered."""
    good, judged_by = tally.answered, tally.judged
    asked = good + tally.failed
    return Traffic(
        version=m.version,
        role=role,
        answered=good,
        failed=tally.failed,
        failed_share=words.percent(tally.failed / asked, 2) if asked else "–",
        asked=words.count(good),
        failures=f"{words.count(tally.failed)} ({words.percent(tally.failed / asked, 2)})" if tally.failed else "0",
        latency=words.milliseconds(tally.latency_ms / good) if good else "–",
        right=f"{words.percent(tally.right / judged_by)} of {words.count(judged_by)}" if judged_by else "–",
        score=f"{tally.score / tally.scored:.3g} of {words.count(tally.scored)}" if tally.scored else "–",
        agrees=words.percent(tally.agreed / tally.compared) if tally.compared else "–",
    )
