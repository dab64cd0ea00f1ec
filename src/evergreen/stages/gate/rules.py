"""The rule of the gate. Pure: figures in, a verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from evergreen.core.config import GateConfig
from evergreen.core.records import Verdict
from evergreen.stages.gate.statistics import Interval, bootstrap, mcnemar, minimum_detectable


@dataclass(frozen=True)
class Case:
    """What is known of a candidate when it is judged."""

    candidate: Mapping[str, Sequence[float]]  #: metric -> one figure per held-out row
    champion: Mapping[str, Sequence[float]] = field(default_factory=dict)  #: the same rows
    rival: int | None = None  #: the champion's version; None: there is none
    obstacle: str = ""  #: why the two cannot be compared
    load_error: str = ""  #: what happened when the serving process loaded it
    latency_ms: float | None = None
    size_mb: float | None = None


def decide(rules: GateConfig, case: Case) -> Verdict:
    """Judge a candidate.

    Hard limits come first (it loads, it is small and quick enough, no score below its floor), then the
    paired difference to the champion against the margin. Without a champion the limits alone decide.
    """
    figures: dict[str, Any] = {"metric": rules.metric, "rule": rules.rule, "margin": rules.margin}
    figures |= {"latency_ms": case.latency_ms, "size_mb": case.size_mb, "rival": case.rival}
    if case.load_error:
        return Verdict(
            outcome="reject", because=f"it does not load where it would serve: {case.load_error}", figures=figures
        )
    if broken := _limits(rules, case):
        return Verdict(outcome="reject", because=broken, figures=figures)
    mine = case.candidate.get(rules.metric, ())
    figures["n"] = len(mine)
    if broken := _unmeasured(rules, case):
        return Verdict(outcome="reject", because=broken, figures=figures)
    if mine:
        own = bootstrap(mine, rules.confidence)
        figures |= {"candidate": own.mean, "interval": [own.low, own.high]}
    for metric, floor in rules.floors.items():
        scores = case.candidate.get(metric, ())
        if not scores:
            return Verdict(
                outcome="reject", because=f"no {metric} was measured, and {floor:g} is the floor", figures=figures
            )
        if (mean := sum(scores) / len(scores)) < floor:
            return Verdict(
                outcome="reject", because=f"{metric} {mean:.3f} is below the floor {floor:g}", figures=figures
            )
    if case.rival is None:
        said = (
            f"{rules.metric} {figures['candidate']:.3f} on {len(mine)} rows"
            if mine
            else "nothing was held out to measure by"
        )
        return Verdict(outcome="promote", because=f"first model: {said}", figures=figures)
    if case.obstacle:
        return Verdict(outcome="not_comparable", because=case.obstacle, figures=figures)
    theirs = case.champion.get(rules.metric, ())
    if len(mine) < rules.min_rows or len(mine) != len(theirs):
        because = f"{min(len(mine), len(theirs))} held-out rows are too few to compare on (at least {rules.min_rows})"
        return Verdict(outcome="inconclusive", because=because, figures=figures)
    return _compare(rules, mine, theirs, case.rival, figures)


def _limits(rules: GateConfig, case: Case) -> str:
    if rules.max_size_mb is not None and case.size_mb is not None and case.size_mb > rules.max_size_mb:
        return f"{case.size_mb:.1f} MB is larger than {rules.max_size_mb:g} MB"
    if rules.max_latency_ms is not None and case.latency_ms is not None and case.latency_ms > rules.max_latency_ms:
        return f"an answer takes {case.latency_ms:.2f} ms, longer than {rules.max_latency_ms:g} ms"
    return ""


def _unmeasured(rules: GateConfig, case: Case) -> str:
    """Say what is wrong with the figures themselves: the metric that decides is missing, or one is no number."""
    if case.candidate and rules.metric not in case.candidate:
        return f"no {rules.metric} was measured, and it is to decide; there is: {', '.join(case.candidate)}"
    for metric, scores in [*case.candidate.items(), *case.champion.items()]:
        if not all(map(isfinite, scores)):
            return f"a figure of {metric} is not a number"
    return ""


def _compare(
    rules: GateConfig, mine: Sequence[float], theirs: Sequence[float], rival: int, figures: dict[str, Any]
) -> Verdict:
    differences = [a - b for a, b in zip(mine, theirs, strict=True)]
    gap = bootstrap(differences, rules.confidence)
    figures |= {
        "champion": sum(theirs) / len(theirs),
        "difference": gap.mean,
        "low": gap.low,
        "high": gap.high,
        "minimum_detectable": minimum_detectable(differences, rules.confidence),
    }
    if set(mine) | set(theirs) <= {0.0, 1.0}:
        figures["mcnemar_p"] = mcnemar(differences.count(1.0), differences.count(-1.0))
    said = (
        f"{rules.metric} {figures['candidate']:.3f} against v{rival}'s {figures['champion']:.3f} on {len(mine)} rows: "
        f"difference {gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
    )
    outcome, reading = _read(rules, gap)
    return Verdict(outcome=outcome, because=f"{reading}: {said}", figures=figures)


def _read(rules: GateConfig, gap: Interval) -> tuple[Any, str]:
    """Read the interval of the difference against the margin."""
    if rules.rule == "superiority":
        if gap.low > rules.margin:
            return "promote", "better"
        if gap.high <= rules.margin:
            return "reject", f"not better by {rules.margin:g}"
        return "inconclusive", f"perhaps better by {rules.margin:g}, perhaps not"
    if gap.low > 0:
        return "promote", "better"
    if gap.low > -rules.margin:
        return "promote", f"no worse by more than {rules.margin:g}"
    if gap.high < 0:
        return "reject", "worse"
    return "inconclusive", f"perhaps worse by more than {rules.margin:g}, perhaps not"
