"""The rule of the gate. Pure: figures in, a verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import fsum, isfinite
from typing import Any

from evergreen.core.config import GateConfig
from evergreen.core.recipe import METRICS, Metric
from evergreen.core.records import Outcome, Verdict
from evergreen.stages.gate import harm, reuse, slices
from evergreen.stages.gate.calibration import Calibration, calibration
from evergreen.stages.gate.compare import Compared, compare, metrics_of, power
from evergreen.stages.gate.golden import Answered
from evergreen.stages.gate.statistics import alone

#: Parts and golden cases that a verdict keeps; the worst ones first.
_KEPT = 100


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
    metrics: Mapping[str, Metric] = field(default_factory=lambda: METRICS)
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    groups: Sequence[int] = ()
    strata: Sequence[str] = ()
    sure: Mapping[str, Sequence[tuple[float, float, float]]] = field(default_factory=dict)
    golden: Sequence[Answered] = ()
    looks: int = 0  #: earlier candidates that were judged on mostly the same rows


def decide(rules: GateConfig, case: Case) -> Verdict:
    """Judge a candidate.

    Hard limits come first (it loads, answers the golden cases, is small and quick enough, no score below its floor),
    then parts of the rows that are certainly worse, then the paired difference to the champion against the margin.
    Without a champion the limits alone decide.
    """
    figures = _facts(rules, case)
    if broken := _limits(rules, case):
        return Verdict(outcome="reject", because=broken, figures=figures)
    confidence = reuse.confidence(rules.confidence, case.looks) if rules.correct_looks else rules.confidence
    found = [
        compare(name, metric, case.candidate[name], _theirs(case, name), confidence, case.groups, case.strata)
        for name, metric in metrics_of(case.metrics, case.candidate, rules.metric)
    ]
    figures["metrics"] = [asdict(one) for one in found]
    decisive = found[0] if found else None
    if decisive:
        figures |= {"candidate": decisive.candidate, "interval": list(decisive.interval), "level": confidence}
    if broken := _floors(rules, case):
        return Verdict(outcome="reject", because=broken, figures=figures)
    measured = {who: calibration(said) for who, said in case.sure.items()}
    figures["calibration"] = {who: asdict(one) for who, one in measured.items() if one}
    if broken := _calibrated(rules, measured.get("candidate")):
        return Verdict(outcome="reject", because=broken, figures=figures)
    if case.rival is None:
        said = f"{_named(decisive)} on {figures['n']} rows" if decisive else "nothing was held out to measure by"
        return Verdict(outcome="promote", because=f"first model: {said}", figures=figures)
    if case.obstacle:
        return Verdict(outcome="not_comparable", because=case.obstacle, figures=figures)
    return _against(rules, case, decisive, figures)


def _facts(rules: GateConfig, case: Case) -> dict[str, Any]:
    """Write down what the verdict is about, and what to mind when reading it."""
    n = len(case.candidate.get(rules.metric, ()))
    wrong = sorted(case.golden, key=lambda one: (one.right, not one.must))
    facts: dict[str, Any] = {"metric": rules.metric, "rule": rules.rule, "margin": rules.margin}
    facts |= {"latency_ms": case.latency_ms, "size_mb": case.size_mb, "rival": case.rival, "n": n, "looks": case.looks}
    facts["golden"] = [asdict(one) for one in wrong[:_KEPT]]
    facts["golden_right"], facts["golden_asked"] = sum(one.right for one in case.golden), len(case.golden)
    mind = []
    if case.looks >= rules.looks:
        mind.append(
            f"{case.looks} earlier candidate{' was' if case.looks == 1 else 's were'} judged on mostly the same {n} rows; "
            "what is chosen so often by the same rows fits them better than what comes next"
        )
    missing = [name for name in rules.slices if name not in case.slices]
    if missing and n:
        mind.append(f"nothing was held out by {', '.join(missing)}, which gate.slices names")
    if case.groups:
        facts["groups"] = len(set(case.groups))
    facts["mind"] = mind
    return facts


def _theirs(case: Case, name: str) -> Sequence[float]:
    return () if case.obstacle or case.rival is None else case.champion.get(name, ())


def _limits(rules: GateConfig, case: Case) -> str:
    """Say what forbids it, whatever it scores."""
    if case.load_error:
        return f"it does not load where it would serve: {case.load_error}"
    if rules.max_size_mb is not None and case.size_mb is not None and case.size_mb > rules.max_size_mb:
        return f"{case.size_mb:.1f} MB is larger than {rules.max_size_mb:g} MB"
    if rules.max_latency_ms is not None and case.latency_ms is not None and case.latency_ms > rules.max_latency_ms:
        return f"an answer takes {case.latency_ms:.2f} ms, longer than {rules.max_latency_ms:g} ms"
    failed = [one for one in case.golden if one.must and not one.right]
    if failed:
        more = f" (and {len(failed) - 1} more that must be right)" if len(failed) > 1 else ""
        one = failed[0]
        return f'golden case "{one.name}" must be answered {one.expected} and was answered {one.answered}{more}'
    if case.candidate and rules.metric not in case.candidate:
        return f"no {rules.metric} was measured, and it is to decide; there is: {', '.join(case.candidate)}"
    for metric, scores in [*case.candidate.items(), *case.champion.items()]:
        if not all(map(isfinite, scores)):
            return f"a figure of {metric} is not a number"
    told = [*case.candidate.values(), *case.slices.values(), *(t for t in (case.groups, case.strata) if len(t))]
    if len({len(column) for column in told}) > 1:
        return "what was measured has not one figure and one part for each row"
    return ""


def _floors(rules: GateConfig, case: Case) -> str:
    for metric, floor in rules.floors.items():
        scores = case.candidate.get(metric, ())
        if not scores:
            return f"no {metric} was measured, and {floor:g} is the floor"
        mean = fsum(scores) / len(scores)
        if case.metrics.get(metric, Metric()).larger_is_better:
            if mean < floor:
                return f"{metric} {mean:.3f} is below the floor {floor:g}"
        elif mean > floor:
            return f"{metric} {mean:.3f} is above {floor:g}, and less is better"
    return ""


def _calibrated(rules: GateConfig, own: Calibration | None) -> str:
    if rules.max_ece is None:
        return ""
    if own is None:
        return f"no probabilities were measured, and {rules.max_ece:g} is the largest calibration error"
    if own.ece > rules.max_ece:
        return f"its probabilities are {own.ece:.3f} off on average, more than {rules.max_ece:g}"
    return ""


def _against(rules: GateConfig, case: Case, decisive: Compared | None, figures: dict[str, Any]) -> Verdict:
    """Judge by the difference to the champion, on all rows and on every part."""
    mine, theirs = case.candidate.get(rules.metric, ()), _theirs(case, rules.metric)
    if decisive is None or decisive.low is None or len(mine) < rules.min_rows:
        rows = min(len(mine), len(theirs))
        because = f"{rows} held-out rows are too few to compare on (at least {rules.min_rows})"
        return Verdict(outcome="inconclusive", because=because, figures=figures)
    names = ("champion", "difference", "low", "high", "minimum_detectable", "mcnemar_p", "better", "worse")
    figures |= {name: value for name in names if (value := getattr(decisive, name)) is not None}
    figures["power"] = power(len(mine), decisive.minimum_detectable, rules.margin)
    rule = slices.Rule(
        margin=rules.slice_margin,
        least=rules.slice_rows,
        confidence=rules.confidence,
        sign=1 if decisive.larger_is_better else -1,
        binary=decisive.binary,
    )
    parts = slices.judge(rule, case.slices, mine, theirs, case.groups)
    figures["slices"] = [asdict(part) for part in sorted(parts, key=_harm)[:_KEPT]]
    figures |= {"slices_judged": sum(part.judged for part in parts), "slices_found": len(parts)}
    outcome, reading = _read(rules, decisive, len(mine), alone(len(mine), case.groups), 1 - figures["level"])
    if harmed := [part for part in parts if part.harmed]:
        worst = min(harmed, key=lambda part: part.difference)
        reading = (
            f"{reading}, most where {worst.slice} is {worst.value}"
            if outcome == "reject"
            else _told(worst, len(harmed), rules)
        )
        outcome = "reject"
    because = f"{reading}: {_named(decisive)} against v{case.rival}'s {decisive.champion:.3f} on {len(mine)} rows: "
    because += f"{_gap(decisive)}"
    if figures["mind"]:
        because += f". Mind: {'; '.join(figures['mind'])}"
    return Verdict(outcome=outcome, because=because, figures=figures)


def _harm(part: slices.Part) -> tuple[bool, bool, float]:
    return not part.harmed, not part.judged, part.difference


def _told(part: slices.Part, harmed: int, rules: GateConfig) -> str:
    more = f", and on {harmed - 1} more part{'s' if harmed > 2 else ''}" if harmed > 1 else ""
    return (
        f"worse by more than {rules.slice_margin:g} where {part.slice} is {part.value} "
        f"({part.candidate:.3f} against {part.champion:.3f} on {part.n} rows){more}"
    )


def _named(decisive: Compared) -> str:
    return f"{decisive.name} {decisive.candidate:.3f}"


def _gap(decisive: Compared) -> str:
    assert decisive.difference is not None
    assert decisive.low is not None
    assert decisive.high is not None
    less = "" if decisive.larger_is_better else " for the better"
    return f"difference {decisive.difference:+.3f} [{decisive.low:+.3f}, {decisive.high:+.3f}]{less}"


def _read(rules: GateConfig, gap: Compared, n: int, apart: int, chance: float) -> tuple[Outcome, str]:
    """Read the interval of the difference against the margin; of `n` rows so many stand `apart`."""
    assert gap.low is not None
    assert gap.high is not None
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
    if rules.benefit and gap.binary and not gap.worse:
        return _none_worse(gap.better if apart == n else 0, apart, rules.margin, chance)
    return "inconclusive", f"perhaps worse by more than {rules.margin:g}, perhaps not"


def _none_worse(better: int, rows: int, margin: float, chance: float) -> tuple[Outcome, str]:
    """Read that no row is answered worse: how often would one show that which is worse by the margin?"""
    found = "no row is answered worse"
    p = harm.of_no_worse(better, rows, margin)
    if p <= chance:
        return "promote", f"{found}, which one worse by {margin:g} would show with a probability of {p:.2g} at most"
    needed = f" ({harm.rows_without_harm(margin, chance):,} such rows would do)" if 0 < margin < 1 else ""
    return "inconclusive", f"{found}, but there are too few to rule out a loss of {margin:g}{needed}"
