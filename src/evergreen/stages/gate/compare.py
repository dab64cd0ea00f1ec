"""Candidate and champion on the same rows, metric by metric. Pure: figures in, figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evergreen.core.recipe import Metric
from evergreen.stages.gate.statistics import bootstrap, mcnemar, minimum_detectable, paired, rows_for


@dataclass(frozen=True)
class Compared:
    """One metric of both models on the same rows."""

    name: str
    means: str  #: what the metric's mean tells, in words
    larger_is_better: bool
    binary: bool
    candidate: float
    interval: tuple[float, float]  #: around the candidate's own mean
    champion: float | None = None
    difference: float | None = None  #: positive: the candidate is better
    low: float | None = None
    high: float | None = None
    minimum_detectable: float | None = None
    mcnemar_p: float | None = None
    better: int = 0  #: rows
    worse: int = 0


def compare(
    name: str,
    metric: Metric,
    mine: Sequence[float],
    theirs: Sequence[float],
    confidence: float,
    groups: Sequence[int] = (),
    strata: Sequence[str] = (),
) -> Compared:
    """Compare one metric, row by row in pairs; without the champion's figures describe the candidate's."""
    binary = set(mine) | set(theirs) <= {0.0, 1.0}
    own = bootstrap(mine, confidence, groups=groups, strata=strata)
    alone = Compared(name, metric.means, metric.larger_is_better, binary, own.mean, (own.low, own.high))
    if len(mine) != len(theirs):
        return alone
    sign = 1 if metric.larger_is_better else -1
    gains = [sign * (a - b) for a, b in zip(mine, theirs, strict=True)]
    gap = paired(gains, confidence, groups=groups, strata=strata)
    better, worse = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    return Compared(
        name,
        metric.means,
        metric.larger_is_better,
        binary,
        own.mean,
        (own.low, own.high),
        champion=sum(theirs) / len(theirs),
        difference=gap.mean,
        low=gap.low,
        high=gap.high,
        minimum_detectable=minimum_detectable(gains, confidence, groups=groups, strata=strata),
        mcnemar_p=mcnemar(better, worse) if binary and not groups else None,
        better=better,
        worse=worse,
    )


def power(n: int, detectable: float | None, margin: float) -> str:
    """Say in words what so many rows show, and how many would show half of it, or the margin.

    >>> power(160, 0.04, 0.02)
    'With 160 rows a difference of 0.04 is found four times in five, a smaller one less often; one of 0.02 takes 640 rows.'
    """
    if detectable is None:
        return ""
    said = f"With {n:,} rows a difference of {detectable:.2g} is found four times in five, a smaller one less often"
    wanted = margin if 0 < margin < detectable else detectable / 2
    many = rows_for(wanted, detectable, n)
    rows = f"about {round(many, 2 - len(str(many))):,}" if many >= 1000 else f"{many}"
    return f"{said}; one of {wanted:.2g} takes {rows} rows."


def metrics_of(
    declared: Mapping[str, Metric], candidate: Mapping[str, Sequence[float]], deciding: str
) -> list[tuple[str, Metric]]:
    """List what was measured, the deciding metric first."""
    names = sorted((name for name, scores in candidate.items() if scores), key=lambda name: (name != deciding, name))
    return [(name, declared.get(name, Metric())) for name in names]
