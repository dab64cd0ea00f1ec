"""Where a loop stands, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from evergreen.core.errors import NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Dataset, Event, Model, Run
from evergreen.core.states import OPEN_RUNS
from evergreen.core.states import ModelState as M


def status(loop: Loop) -> dict[str, Any]:
    """Return champion, samples, run in progress, rollout and the last event."""
    ledger, name = loop.ledger, loop.name
    counts = ledger.counts(name)
    dataset = ledger.last(Dataset, name)
    learnt = next((r.dataset for r in loop.runs() if r.dataset is not None and r.origin is None), None)
    champion = ledger.last(Model, name, M.CHAMPION)
    challenger = next((m for state in (M.CANARY, M.SHADOW, M.PASSED) if (m := ledger.last(Model, name, state))), None)
    last = ledger.last(Event, name)
    rules = loop.config.trigger
    return {
        "loop": name,
        "recipe": loop.config.recipe.use,
        "champion": _model(loop, champion),
        "rollout": _model(loop, challenger),
        "waiting": [m.version for m in ledger.find(Model, name, M.PASSED) if challenger and m.id != challenger.id],
        "samples": {
            "collected": counts.usable,
            "new": max(0, counts.usable - (ledger.get(Dataset, learnt).collected if learnt else 0)),
            "unlabelled": counts.unlabelled,
            "pending": counts.pending,
            "rejected": counts.rejected,
            "quarantined": counts.quarantined,
        },
        "dataset": None if dataset is None else _pick(dataset, "version", "train", "holdout", "digest", "at"),
        "run": _run(ledger.last(Run, name, *OPEN_RUNS)),
        "last_run": _run(ledger.last(Run, name)),
        "trigger": {
            "auto": rules.auto,
            "every_s": rules.every.total_seconds() if rules.every else None,
            "min_new": rules.min_new,
            "min_size": rules.min_size,
            "last_look": ledger.recall("looked", name),
        },
        "alarms": _alarms(loop),
        "last_event": _event(loop, last) if last else None,
    }


def history(loop: Loop, *, limit: int = 50, before: int | None = None) -> list[dict[str, Any]]:
    """Return what happened and why, newest first; `before` is the `seq` to go on from."""
    if before is None:
        return [_event(loop, e) for e in loop.ledger.find(Event, loop.name, newest_first=True, limit=limit)]
    span = 4 * limit
    while True:  # the places before `before`, farther and farther back
        since = max(0, before - 1 - span)
        events = [e for e in loop.ledger.find(Event, loop.name, after=since, limit=span) if e.seq < before]
        if len(events) >= limit or since == 0:
            return [_event(loop, e) for e in events[::-1][:limit]]
        span *= 4


def _alarms(loop: Loop) -> list[dict[str, Any]]:
    """Return what is wrong with the champion's traffic now: answers that fail, and drift."""
    failures = json.loads(loop.ledger.recall("watch", loop.name) or "{}")
    drift = json.loads(loop.ledger.recall("drift", f"{loop.name}/alarm") or "{}")
    found = [("failures", failures)] if failures.get("alarm") else []
    found += [("drift", drift)] if drift else []
    return [{"kind": kind, "since": said.get("since"), "because": said.get("because")} for kind, said in found]


def _model(loop: Loop, model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    tally = loop.ledger.tally(model.id)
    return {
        **_pick(model, "version", "state", "share", "since", "scores"),
        "verdict": {k: model.verdict.get(k) for k in ("outcome", "because")},
        "answered": tally.answered,
        "failed": tally.failed,
        "mean_latency_ms": round(tally.latency_ms / tally.answered, 3) if tally.answered else None,
    }


def _run(run: Run | None) -> dict[str, Any] | None:
    if run is None:
        return None
    progress: Mapping[str, Any] = run.progress
    return {
        **_pick(run, "id", "state", "attempt", "why", "by", "started", "ended", "error", "failure"),
        "phase": progress.get("phase", ""),
        "step": progress.get("step", 0),
        "total": progress.get("total", 0),
        "metrics": progress.get("metrics", {}),
        "where": progress.get("where"),
        "left_s": progress.get("left_s"),
        "heard": progress.get("heard"),
    }


def _event(loop: Loop, event: Event) -> dict[str, Any]:
    said = _pick(event, "seq", "at", "what", "subject", "by", "because", "frm", "to", "details")
    return said | {"kind": event.kind, "version": _version(loop, event)}


def _version(loop: Loop, event: Event) -> int | None:
    """Return the number of the model or dataset that an event is about."""
    kind = {"model": Model, "dataset": Dataset}.get(event.noun)
    if kind is None:
        return None
    try:
        return loop.ledger.get(kind, event.about).version
    except NotFound:
        return None


def _pick(record: object, *names: str) -> dict[str, Any]:
    return {n: _plain(getattr(record, n)) for n in names}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
