"""The corridor on a loop's page: eight steps with a short figure each, and where something happens now. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from evergreen.core.ports import Tally
from evergreen.core.states import ModelState
from evergreen.http.pages import views, words
from evergreen.http.pages.reading import Facts


@dataclass(frozen=True)
class Stop:
    """One of the eight steps of the corridor."""

    name: str
    figure: str
    current: bool


def corridor(facts: Facts) -> list[Stop]:
    """Return the eight steps with a short figure each; the one where something happens is current."""
    run, m = views.working(facts), facts.coming
    newest = facts.models[0] if facts.models else None
    figures = {
        "collect": f"{words.count(facts.counts.usable)} samples",
        "dataset": f"v{facts.dataset.version}, {words.count(facts.dataset.train + facts.dataset.holdout)} rows"
        if facts.dataset
        else "none yet",
        "trigger": _trigger(facts),
        "run": "idle"
        if run is None
        else words.whole_percent(round(run.share, 2))
        if run.share is not None
        else run.state,
        "gate": _gate(facts),
        "rollout": "at rest"
        if m is None
        else f"v{m.version} {views.state_name(m.state)}{' ' + words.whole_percent(m.share) if m.share else ''}",
        "serve": f"v{facts.champion.version} answers" if facts.champion else "no model",
        "observe": _observe(facts),
    }
    if run is not None:
        now = "trigger" if run.state == "requested" else "run"
    elif m is not None:
        now = "rollout"
    elif newest is not None and newest.state is ModelState.CANDIDATE:
        now = "gate"
    else:
        now = "serve" if facts.champion else "collect"
    return [Stop(name, figure, name == now) for name, figure in figures.items()]


def _trigger(facts: Facts) -> str:
    rules = facts.config.trigger
    if not rules.auto:
        return "by hand"
    if rules.min_new is not None:
        return f"{words.count(min(views.new_samples(facts), rules.min_new))} of {words.count(rules.min_new)} new"
    return f"every {words.span(rules.every)}" if rules.every else "by hand"


def _gate(facts: Facts) -> str:
    for m in facts.models:
        if m.state is ModelState.CANDIDATE:
            return f"judging v{m.version}"
        if m.state in (ModelState.REJECTED, ModelState.UNDECIDED):
            return f"v{m.version} {m.state}"
        return f"v{m.version} passed"
    return "nothing yet"


def _observe(facts: Facts) -> str:
    total = sum(facts.tallies.values(), Tally())
    asked = total.answered + total.failed
    return f"{words.percent(total.failed / asked)} failed" if asked else "no traffic"
