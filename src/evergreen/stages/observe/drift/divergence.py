"""How far two sets of counts are apart, and how much of that is chance. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp, lgamma, log, log2, sqrt

#: Added to every bin, so that an empty one is no infinite surprise (Jeffreys).
_HALF = 0.5
#: Rows that chance would put into a bin; with fewer, rare bins are tested as one.
_FEWEST = 5.0
#: What parts of a reference differ by is taken for chance if chance explains it more often than this.
_SURE = 0.01


def psi(reference: Sequence[float], window: Sequence[float]) -> float:
    """Return the population stability index: sum of (q − p) · ln(q / p) over bins; 0 for equals.

    >>> psi([50, 50], [5, 5]), round(psi([500, 500], [200, 800]), 2)
    (0.0, 0.41)
    """
    p, q = _shares(reference, _HALF), _shares(window, _HALF)
    return sum((b - a) * log(b / a) for a, b in zip(p, q, strict=True))


def expected_psi(bins: int, m: float, n: float) -> float:
    """Return what the index of samples of m and n rows from one distribution is on average: (bins − 1)(1/m + 1/n)."""
    return max(bins - 1, 0) * (1 / max(m, 1) + 1 / max(n, 1))


def jensen_shannon(reference: Sequence[float], window: Sequence[float]) -> float:
    """Return the Jensen–Shannon distance (Endres and Schindelin 2003): 0 for equals, 1 for nothing in common.

    >>> jensen_shannon([1, 0], [0, 1]), jensen_shannon([3, 1], [6, 2])
    (1.0, 0.0)
    """
    p, q = _shares(reference), _shares(window)
    nats = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        nats += sum(x * log2(x / middle) for x in (a, b) if x > 0) / 2
    return sqrt(min(max(nats, 0.0), 1.0))


def kolmogorov_smirnov(reference: Sequence[float], window: Sequence[float], m: float, n: float) -> tuple[float, float]:
    """Return the largest difference of the two distribution functions, and its p-value.

    Of binned numbers the difference is seen at the ends of bins only, so p is never too small. `m` and `n` are the
    rows that the samples are worth. Series of Kolmogorov, corrected for small samples by Stephens (1970).
    """
    gap = most = 0.0
    for a, b in zip(_shares(reference), _shares(window), strict=True):
        gap += a - b
        most = max(most, abs(gap))
    if m <= 0 or n <= 0:
        return most, 1.0
    root = sqrt(m * n / (m + n))
    x = (root + 0.12 + 0.11 / root) * most
    if x < 0.3:
        return most, 1.0
    p = 2 * sum((-1) ** (k - 1) * exp(-2 * (k * x) ** 2) for k in range(1, 101))
    return most, min(max(p, 0.0), 1.0)


def chi_square(reference: Sequence[float], window: Sequence[float], m: float, n: float) -> tuple[float, float]:
    """Return Pearson's statistic of two samples, and its p-value; bins in which little is expected are tested as one.

    `m` and `n` are the rows that the samples are worth (Rao and Scott 1981 on what that makes of the test).
    """
    if m <= 0 or n <= 0:
        return 0.0, 1.0
    p, q = _shares(reference), _shares(window)
    rare = [0.0, 0.0]
    kept: list[tuple[float, float]] = []
    for a, b in zip(p, q, strict=True):
        if (m * a + n * b) / (m + n) * min(m, n) < _FEWEST:
            rare = [rare[0] + a, rare[1] + b]
        else:
            kept.append((a, b))
    if sum(rare) > 0:
        kept.append((rare[0], rare[1]))
    pooled = [(m * a + n * b) / (m + n) for a, b in kept]
    if len(kept) < 2:
        return 0.0, 1.0
    statistic = sum((a - b) ** 2 / c for (a, b), c in zip(kept, pooled, strict=True)) / (1 / m + 1 / n)
    return statistic, chance(statistic, len(kept) - 1)


def chance(statistic: float, degrees: int) -> float:
    """Return how probable a chi-square of so many degrees of freedom is that is at least this large (DLMF 8.7, 8.9).

    >>> round(chance(3.841, 1), 3), chance(0.0, 4)
    (0.05, 1.0)
    """
    a, x = degrees / 2, statistic / 2
    if x <= 0:
        return 1.0
    front = exp(-x + a * log(x) - lgamma(a))
    if x < a + 1:  # the series of the lower part
        term = summed = 1 / a
        k = a
        while term > summed * 1e-15:
            k += 1
            term *= x / k
            summed += term
        return min(max(1 - front * summed, 0.0), 1.0)
    b, c = x + 1 - a, 1e300  # the continued fraction of the upper part, by Lentz
    d = 1 / b
    fraction = d
    for i in range(1, 1000):
        step = -i * (i - a)
        b += 2
        d = 1 / (step * d + b or 1e-300)
        c = b + step / c or 1e-300
        fraction *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    return min(max(front * fraction, 0.0), 1.0)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979): the chance of a single false alarm among all of them.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted = [0.0] * len(values)
    worst = 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = worst
    return adjusted


@dataclass(frozen=True)
class Unevenness:
    """How parts of a reference differ from each other by more than chance: 1 for no more."""

    excess: float  #: the variance between parts by that of independent rows, at its upper bound where there is some
    growth: float = 0.0  #: with which power of the length it grows: 0 for short sessions, 1 for slow change


def uneven(parts: Sequence[Sequence[int]], *, ordered: bool) -> Unevenness:
    """Measure unevenness on parts of one length in the order in which they came; `ordered`: their bins are.

    Rows of one user, one device or one hour are alike, so parts of a stream differ by more than independent rows
    would (the design effect of clusters, Kish 1965). What the parts cannot tell from chance is taken for chance; else
    the upper end of a 95 % interval is taken, for the parts are few.

    >>> uneven([[50, 50]] * 20, ordered=False).excess, uneven([[100, 0], [0, 100]] * 10, ordered=False).growth
    (1.0, 0.0)
    """
    fine, degrees = _excess(parts, ordered)
    if degrees < 1 or chance(fine * degrees, round(degrees)) > _SURE:
        return Unevenness(1.0)
    pairs = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(parts[::2], parts[1::2], strict=False)]
    coarse = _excess(pairs, ordered)[0]
    growth = log2(max(coarse - 1, 1e-9) / (fine - 1)) if fine > 1 else 0.0
    return Unevenness(max(fine, 1.0) * _upper(len(parts) - 1), min(max(growth, 0.0), 1.0))


def worth(rows: float, excess: float, growth: float, length: float) -> float:
    """Return how many independent rows a stretch of rows is worth, `excess` being measured on parts of `length` rows.

    >>> worth(1000, 1.0, 0.0, 250), worth(1000, 4.0, 0.0, 250), worth(1000, 4.0, 1.0, 250)
    (1000.0, 250.0, 76.92307692307692)
    """
    longer: float = max(rows / length, 1.0) ** growth
    return rows / (1 + (excess - 1) * longer)


def _excess(parts: Sequence[Sequence[int]], ordered: bool) -> tuple[float, float]:
    """Return the variance between parts by that of independent rows, and the degrees of freedom it rests on."""
    whole = sum(map(sum, parts))
    shares, degrees = [], 0.0
    if ordered:
        # Distribution functions: the statistic of Anderson and Darling, of which 3.45 degrees are worth one part.
        shares, degrees = [_running(_shares(part)) for part in parts], 3.45 * (len(parts) - 1)
    else:
        shares = [_shares(part) for part in parts]
    sizes = [sum(part) for part in parts]
    found, used = 0.0, 0
    for column in zip(*shares, strict=True):
        mean = sum(n * share for n, share in zip(sizes, column, strict=True)) / max(whole, 1)
        if not 1e-9 < mean < 1 - 1e-9:
            continue
        used += 1
        spread = sum(n * (share - mean) ** 2 for n, share in zip(sizes, column, strict=True))
        found += spread / (mean * (1 - mean)) if ordered else spread / mean
    if not used or len(parts) < 2:
        return 1.0, 0.0
    if ordered:
        return found / used / (len(parts) - 1), min(degrees, used * (len(parts) - 1))
    free = max(used - 1, 1) * (len(parts) - 1)
    return found / free, free


def _upper(degrees: int) -> float:
    """Return by what a variance of so many degrees may be too low, 1 time in 20 (Wilson and Hilferty 1931)."""
    part = 2 / (9 * degrees)
    low = max(1 - part - 1.645 * sqrt(part), 0.2)
    return 1 / (low * low * low)


def _running(shares: Sequence[float]) -> list[float]:
    """Return sums from the first to each but the last."""
    return list(accumulate(shares))[:-1]


def _shares(counts: Sequence[float], extra: float = 0.0) -> list[float]:
    whole = sum(counts) + extra * len(counts)
    return [(n + extra) / whole for n in counts] if whole else [0.0] * len(counts)
