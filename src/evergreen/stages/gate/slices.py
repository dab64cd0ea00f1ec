"""Parts of the holdout judged by themselves, without crying wolf for having looked at many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evergreen.stages.gate import harm
from evergreen.stages.gate.statistics import paired


@dataclass(frozen=True)
class Part:
    """A part of the holdout: the mean of both models there, and by how much the candidate is better."""

    slice: str
    value: str
    n: int
    candidate: float
    champion: float
    difference: float  #: positive: the candidate is better
    low: float
    high: float
    judged: bool  #: there are rows enough for it to decide
    p: float | None = None  #: of harm beyond the margin, adjusted for the number of parts judged
    harmed: bool = False  #: certainly worse by more than the margin


@dataclass(frozen=True)
class Rule:
    """How parts are judged."""

    margin: float
    least: int  #: rows
    confidence: float
    sign: int = 1  #: -1 where less is better
    binary: bool = False  #: every figure is 0 or 1


def judge(
    rule: Rule,
    slices: Mapping[str, Sequence[str]],
    mine: Sequence[float],
    theirs: Sequence[float],
    groups: Sequence[int] = (),
) -> list[Part]:
    """Compare both models on every part, in the order of the slices and of their values.

    A part is harmed if a one-sided test says that it is worse by more than the margin, after Holm's correction over
    all parts judged: the chance that any part is called harmed that is not, is at most one minus the confidence.
    """
    found, chances = [], []
    for name, values in slices.items():
        for value in sorted(set(values)):
            at = [i for i, v in enumerate(values) if v == value]
            part, p = _part(rule, name, value, [mine[i] for i in at], [theirs[i] for i in at], _of(groups, at))
            found.append(part)
            if part.judged:
                chances.append(p)
    adjusted = iter(harm.holm(chances))
    return [_with(part, next(adjusted), rule) if part.judged else part for part in found]


def _with(part: Part, p: float, rule: Rule) -> Part:
    return replace(part, p=p, harmed=p < 1 - rule.confidence)


def _part(
    rule: Rule, name: str, value: str, mine: Sequence[float], theirs: Sequence[float], groups: Sequence[int]
) -> tuple[Part, float]:
    gains = [rule.sign * (a - b) for a, b in zip(mine, theirs, strict=True)]
    n, gap = len(gains), paired(gains, rule.confidence, groups=groups)
    p = (
        harm.of_answers(gains.count(1.0), gains.count(-1.0), n, rule.margin)
        if rule.binary and len(set(groups)) in (0, n)
        else harm.of_figures(gains, groups, rule.margin)
    )
    means = sum(mine) / n, sum(theirs) / n
    return Part(name, value, n, *means, gap.mean, gap.low, gap.high, judged=n >= rule.least), p


def _of(groups: Sequence[int], at: Sequence[int]) -> list[int]:
    return [groups[i] for i in at] if groups else []
