"""Drift for others to read: as plain data, and as the file of violations that monitors share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec

from evergreen.core.loop import Loop
from evergreen.core.records import Model
from evergreen.core.states import ModelState
from evergreen.stages.observe.drift import alarm, memory
from evergreen.stages.observe.drift.compare import Finding
from evergreen.stages.observe.drift.memory import State
from evergreen.stages.observe.drift.sketch import Feature, Pane, Reference

_VIOLATIONS, _REPORT = "constraint_violations.json", "report.json"


def key(loop: str, name: str = _VIOLATIONS) -> str:
    """Return where a report lies in the store: `constraint_violations.json`, or all figures in `report.json`."""
    return f"reports/drift/{loop}/{name}"


def drift_report(loop: Loop) -> dict[str, Any]:
    """Return what is known of a loop's drift: alarm, features with their counts, quality, violations."""
    return _report(loop, memory.recall(loop) if loop.config.drift.watch else None)


def write(loop: Loop, state: State) -> None:
    """Write both files to the store, in place of the former ones."""
    said = _report(loop, state)
    loop.store.write(key(loop.name, _REPORT), _json(said))
    loop.store.write(key(loop.name), _json({"violations": said["violations"]}))


def violations(found: Sequence[Finding], state: State) -> list[dict[str, str]]:
    """Return what has drifted, the farthest first, as monitors share it: name, type of check, a sentence.

    The shape is that of `constraint_violations.json` of Amazon SageMaker Model Monitor.
    """
    said = [
        {
            "feature_name": f.name if f.of == "inputs" else f"{f.of}.{f.name}",
            "constraint_check_type": f.check,
            "description": f"{_WORDS[f.check]}: PSI {f.effect:.3f}, Jensen–Shannon distance {f.distance:.3f}, "
            f"{f.test} {f.statistic:.3f}, p {_p(f.p)} over all features",
        }
        for f in alarm.worst(found)
    ]
    if state.quality.fallen:
        said.append(
            {
                "feature_name": "quality",
                "constraint_check_type": "baseline_drift_check",
                "description": alarm.told([], state.quality, 0, state.looked.version),
            }
        )
    return said


_WORDS = {
    "baseline_drift_check": "Its distribution is another than in the reference",
    "completeness_check": "It is missing more or less often than in the reference",
    "categorical_values_check": "It has values that the reference does not have",
}


def _p(p: float) -> str:
    return "below 1e-6" if p < 1e-6 else f"{p:.2g}"


def _report(loop: Loop, state: State | None) -> dict[str, Any]:
    rules = loop.config.drift
    base: dict[str, Any] = {
        "loop": loop.name,
        "watched": rules.watch,
        "rules": {"window": rules.window, "min_rows": rules.min_rows, "effect": rules.effect, "fall": rules.fall},
        "champion": None,
        "because": "",
        "alarm": None,
        "inputs": None,
        "outputs": None,
        "features": [],
        "quality": None,
        "undescribed": 0,
        "violations": [],
    }
    if state is None:
        champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
        waiting = "there is no champion yet" if champion is None else "nothing was looked at yet"
        return base | {"because": waiting if rules.watch else "drift.watch is false"}
    found = memory.found(state, rules)
    inputs = memory.whole(state.references.inputs, state.window.inputs)
    outputs = memory.whole(state.references.outputs, state.window.outputs)
    q = state.quality
    return base | {
        "champion": state.looked.version,
        "because": _because(loop, state, found, inputs.n),
        "alarm": msgspec.to_builtins(state.alarm),
        "inputs": _side(state.references.inputs, inputs),
        "outputs": _side(state.references.outputs, outputs),
        "features": [
            *_features("inputs", state.references.inputs, inputs, found),
            *_features("outputs", state.references.outputs, outputs, found),
        ],
        "quality": {"judged": q.judged, "share": q.share, "before": q.level or None, "fallen": q.fallen}
        if q.judged
        else None,
        "undescribed": state.looked.unread,
        "violations": violations(found, state),
    }


def _because(loop: Loop, state: State, found: Sequence[Finding], rows: int) -> str:
    """Say in a sentence how it stands."""
    if any(f.drifted for f in found) or state.quality.fallen:
        return alarm.told(found, state.quality, rows, state.looked.version)
    if state.looked.why:
        return state.looked.why
    rules = loop.config.drift
    if loop.config.serve.log == "off":
        return "predictions are not stored (serve.log), so there is nothing to compare"
    if rows < rules.min_rows:
        return f"{rows:,} of {rules.min_rows:,} predictions that a comparison takes were stored"
    return f"the last {rows:,} predictions are like what v{state.looked.version} learnt from"


def _side(reference: Reference | None, window: Pane) -> dict[str, int] | None:
    return None if reference is None else {"reference": reference.rows, "window": window.n}


def _features(of: str, reference: Reference | None, window: Pane, found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return each feature with its bins, those that have drifted first, the farthest first of all."""
    if reference is None:
        return []
    said = []
    for feature, counts in zip(reference.features, window.counts, strict=True):
        checks = [f for f in found if (f.of, f.name) == (of, feature.name)]
        drifted = [f for f in checks if f.drifted]
        worst = max(drifted or checks, key=lambda f: f.effect, default=None)
        said.append(
            {
                "of": of,
                "name": feature.name,
                "kind": feature.kind,
                "drifted": bool(drifted),
                "psi": worst and round(worst.effect, 4),
                "p": worst and worst.p,
                "test": worst and worst.test,
                "uneven": round(feature.uneven.excess, 2),
                "bins": _bins(feature, counts),
                "checks": [
                    {
                        "check": f.check,
                        "test": f.test,
                        "statistic": round(f.statistic, 4),
                        "p": f.p,
                        "psi": round(f.effect, 4),
                        "jensen_shannon": round(f.distance, 4),
                        "drifted": f.drifted,
                    }
                    for f in checks
                ],
            }
        )
    return sorted(said, key=lambda one: (not one["drifted"], -(one["psi"] or 0.0)))


def _bins(feature: Feature, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Name the bins; a number's have their ends, null where there is none."""
    pairs = list(zip(feature.counts, counts, strict=True))
    if feature.kind == "category":
        labels = [*feature.values, "other", "missing"]
        named: list[dict[str, Any]] = [{"label": label} for label in labels]
    else:
        ends = [None, *feature.edges, None]
        named = [{"from": low, "to": high} for low, high in pairwise(ends)]
        named.append({"label": "missing"})
    return [{**name, "reference": was, "window": now} for name, (was, now) in zip(named, pairs, strict=True)]


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
