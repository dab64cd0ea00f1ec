"""Whether probabilities come true: reliability by bins, and what it costs where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, log

BINS = 10
_LEAST = 1e-6


@dataclass(frozen=True)
class Bin:
    """Answers that were about equally sure."""

    sure: float  #: mean probability they gave themselves
    right: float  #: share of them that were right
    n: int


@dataclass(frozen=True)
class Calibration:
    """How far what a model says of itself can be believed."""

    ece: float  #: expected calibration error: mean distance of sure from right over ten equal bins (Naeini et al. 2015)
    brier: float  #: mean squared distance of the decision's probability from whether it was right (Brier 1950)
    log_loss: float  #: mean negative logarithm of the probability of what is right, cut off at 1e-6
    bins: Sequence[Bin]


def calibration(said: Sequence[tuple[float, float, float]]) -> Calibration | None:
    """Measure probabilities: for each row that of the decision, whether that was right, and that of what is right.

    >>> calibration([(0.8, 1, 0.8), (0.8, 1, 0.8), (0.8, 0, 0.1), (0.8, 1, 0.8)]).ece
    0.05
    """
    if not said:
        return None
    n = len(said)
    binned: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for sure, right, _ in said:
        binned[min(max(int(sure * BINS), 0), BINS - 1)].append((sure, right))
    bins = [
        Bin(round(fsum(s for s, _ in b) / len(b), 6), round(fsum(r for _, r in b) / len(b), 6), len(b))
        for b in binned
        if b
    ]
    return Calibration(
        ece=round(fsum(abs(b.sure - b.right) * b.n for b in bins) / n, 6),
        brier=round(fsum((sure - right) ** 2 for sure, right, _ in said) / n, 6),
        log_loss=round(-fsum(log(min(max(p, _LEAST), 1.0)) for *_, p in said) / n, 6),
        bins=bins,
    )
