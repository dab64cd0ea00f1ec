"""How certain it is that a part of the rows is answered worse: one-sided tests, and many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, comb, log, log1p, sqrt
from statistics import NormalDist

from evergreen.stages.gate.statistics import Drawn, score

_NORMAL = NormalDist()


def of_answers(better: int, worse: int, n: int, margin: float) -> float:
    """Return the p of "worse by more than `margin`" for answers that are right or wrong, paired.

    With a margin this is Tango's score test (1998) turned towards harm; without one McNemar's exact test, one-sided.

    >>> round(of_answers(1, 9, 60, 0.0), 4)
    0.0107
    >>> of_answers(1, 9, 60, 0.02) > of_answers(1, 9, 60, 0.0)
    True
    """
    if margin == 0:
        m = better + worse
        return float(sum(comb(m, i) for i in range(better + 1)) / 2**m)
    return _NORMAL.cdf(score(better, worse, n, -margin))


def of_figures(differences: Sequence[float], groups: Sequence[int], margin: float) -> float:
    """Return the p of "worse by more than `margin`" for any figures: Student's test over groups of rows."""
    drawn = Drawn(differences, groups)
    n = len(drawn.units[0][0])
    beyond = drawn.mean + margin
    if drawn.standard_error == 0.0 or n < 2:  # all alike: each is a coin that fell on the same side
        return 0.5**n if beyond < 0 else 1.0
    return _student(beyond / drawn.standard_error, n - 1)


def of_no_worse(better: int, n: int, margin: float) -> float:
    """Return the chance, at most, that one worse by `margin` answers none of n rows worse and so many better.

    Exact, at the worst of all rates at which rows may differ (Barnard 1947).

    >>> round(of_no_worse(0, 299, 0.01), 4), round(of_no_worse(2, 60, 0.02), 3), of_no_worse(5, 50, 0.0) < 0.05
    (0.0495, 0.031, True)
    """
    rates = [better / n * step / 64 for step in range(65)] if better else [0.0]
    return max(_none_worse(better, n, margin, p) for p in rates if 2 * p + margin < 1) if margin < 1 else 0.0


def _none_worse(better: int, n: int, margin: float, rate: float) -> float:
    """Return that chance where a share `rate` of rows is answered better, and `rate + margin` worse."""
    kept = 1 - rate - margin
    among = rate / kept
    term = (1 - among) ** n
    fewer = 0.0
    for k in range(better):
        fewer += term
        term *= (n - k) / (k + 1) * among / (1 - among)
    return kept**n * max(0.0, 1 - fewer)


def rows_without_harm(margin: float, chance: float) -> int:
    """Return how many rows alike show that one is not worse by `margin`.

    >>> rows_without_harm(0.01, 0.05), rows_without_harm(0.02, 0.05)
    (299, 149)
    """
    return ceil(log(chance) / log1p(-margin))


def _student(t: float, freedom: int) -> float:
    """Return the chance of a smaller Student's t, by Wallace's approximation (1959)."""
    z = (8 * freedom + 1) / (8 * freedom + 3) * sqrt(freedom * log1p(t * t / freedom))
    return _NORMAL.cdf(z if t > 0 else -z)


def holm(chances: Sequence[float]) -> list[float]:
    """Return p adjusted for their number, in the order given (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(chances), 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda i: chances[i])):
        largest = max(largest, min(1.0, (len(chances) - rank) * chances[place]))
        adjusted[place] = largest
    return adjusted
