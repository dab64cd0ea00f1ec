"""How sure a difference is, when both models answered the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, comb, copysign, inf, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

RESAMPLES = 2000
#: So many resamples at most, and so many of them beyond each end of the interval.
_MOST, _BEYOND = 50_000, 10
#: Figures drawn at a time.
_CHUNK = 4_000_000
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A mean and the interval around it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Drawn:
    """Figures, one per row, and how the rows were drawn.

    Rows of one group (a session, a camera) come and go together, and each stratum has a fixed number of them.
    """

    values: Sequence[float]
    groups: Sequence[int] = ()
    strata: Sequence[str] = ()

    @cached_property
    def units(self) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """For each stratum: the sums and the sizes of its groups; without groups every row is one."""
        import numpy as np

        data = np.asarray(self.values, dtype=np.float64)
        numbers = self.groups if len(self.groups) else np.arange(len(data))
        _, first, place = np.unique(numbers, return_index=True, return_inverse=True)
        sums, sizes = np.bincount(place, data), np.bincount(place).astype(np.float64)
        if not len(self.strata):
            return [(sums, sizes)]
        layer = np.asarray(self.strata, dtype=object)[first]
        return [(sums[layer == name], sizes[layer == name]) for name in dict.fromkeys(layer.tolist())]

    @cached_property
    def mean(self) -> float:
        """The mean over all rows."""
        return float(sum(s.sum() for s, _ in self.units) / len(self.values))

    @cached_property
    def influence(self) -> list[NDArray[Any]]:
        """For each stratum: by how much each group pulls the mean (Davison and Hinkley 1997, section 3.2)."""
        pulls = []
        for sums, sizes in self.units:
            pull = (sums - self.mean * sizes) / len(self.values)
            pulls.append(pull - pull.mean())
        return pulls

    @cached_property
    def standard_error(self) -> float:
        """Of the mean; 0 where nothing differs."""
        return sqrt(sum(float((p**2).sum()) * len(p) / (len(p) - 1) for p in self.influence if len(p) > 1))


def bootstrap(
    values: Sequence[float],
    confidence: float,
    seed: int = 0,
    *,
    groups: Sequence[int] = (),
    strata: Sequence[str] = (),
) -> Interval:
    """Return the mean and its BCa bootstrap interval (Efron 1987); for paired data give the differences.

    `values` has one figure per row. With one row, or all alike, the interval is the mean itself. Two models that
    change places have the same interval with its signs turned.
    """
    import numpy as np

    drawn = Drawn(values, groups, strata)
    pulls = np.concatenate(drawn.influence)
    if drawn.standard_error == 0.0 or float(np.ptp(np.asarray(values))) == 0.0:
        return Interval(drawn.mean, drawn.mean, drawn.mean)
    lean = _lean(drawn)
    if lean < 0:
        back = bootstrap([-v for v in values], confidence, seed, groups=groups, strata=strata)
        return Interval(-back.mean, -back.high, -back.low)
    tail = (1 - confidence) / 2
    times = min(_MOST, max(RESAMPLES, ceil(_BEYOND / tail)))
    means = _resampled_means(drawn, np.random.default_rng(seed), times)
    if lean == 0:  # to neither side: what was drawn turned round is as likely
        means = np.concatenate([means, -means])
    below = (float((means < drawn.mean).mean()) + float((means <= drawn.mean).mean())) / 2
    bias = _NORMAL.inv_cdf(min(max(below, 1 / times), 1 - 1 / times))
    pulls /= np.abs(pulls).max()  # the acceleration has no unit, and tiny figures have no cubes
    acceleration = float((pulls**3).sum()) / (6 * float((pulls**2).sum()) ** 1.5)
    ends = []
    for z in (_NORMAL.inv_cdf(tail), _NORMAL.inv_cdf(1 - tail)):
        left = 1 - acceleration * (bias + z)
        # Far out the correction has a pole; behind it is nothing but the end of what was drawn.
        at = _NORMAL.cdf(bias + (bias + z) / left) if left > 0 else float(z > 0)
        ends.append(float(np.quantile(means, at)))
    return Interval(drawn.mean, ends[0], ends[1])


def _lean(drawn: Drawn) -> float:
    """Say to which side figures lean; they are turned to lean up, so that chance treats both models alike."""
    return drawn.mean or sum(float((sums**3).sum()) for sums, _ in drawn.units)


def _resampled_means(drawn: Drawn, rng: Generator, times: int) -> NDArray[Any]:
    """Draw the means of resamples: by counts where few values occur, else unit by unit."""
    import numpy as np

    sums, sizes = np.zeros(times), np.zeros(times)
    for unit_sums, unit_sizes in drawn.units:
        n = len(unit_sums)
        kinds, counts = np.unique(np.stack([unit_sums, unit_sizes]), axis=1, return_counts=True)
        if kinds.shape[1] <= 64:
            picked = rng.multinomial(n, counts / n, size=times)
            sums += picked @ kinds[0]
            sizes += picked @ kinds[1]
            continue
        step = max(1, _CHUNK // n)
        for begin in range(0, times, step):
            at = rng.integers(0, n, (min(step, times - begin), n))
            sums[begin : begin + step] += unit_sums[at].sum(axis=1)
            sizes[begin : begin + step] += unit_sizes[at].sum(axis=1)
    return np.asarray(sums / sizes)


def paired(
    gains: Sequence[float], confidence: float, *, groups: Sequence[int] = (), strata: Sequence[str] = ()
) -> Interval:
    """Return the mean of paired differences and its interval: BCa, and never narrower than the data can bear.

    Where answers are right or wrong few rows may differ, and resampling sees only those: then the interval is at least
    Tango's, or of groups and layers at least what a kind of difference may be that no row shows.
    """
    found = bootstrap(gains, confidence, groups=groups, strata=strata)
    kinds = set(gains)
    if not kinds <= {-1.0, 0.0, 1.0}:
        return found
    if len(groups) or len(strata):
        unseen = 1 - ((1 - confidence) / 2) ** (1 / alone(len(gains), groups))
        low, high = (0.0 if kind in kinds else sign * unseen for kind, sign in ((-1.0, -1), (1.0, 1)))
    else:
        low, high = score_interval(gains.count(1.0), gains.count(-1.0), len(gains), confidence)
    return Interval(found.mean, min(found.low, low), max(found.high, high))


def alone(n: int, groups: Sequence[int]) -> int:
    """Return how many of n rows stand for themselves, at least: those of a group stand or fall together.

    >>> alone(6, []), alone(6, [1, 1, 1, 2, 3, 4])
    (6, 2)
    """
    return n // max(Counter(groups).values()) if len(groups) else n


def score_interval(better: int, worse: int, n: int, confidence: float) -> tuple[float, float]:
    """Return Tango's score interval (1998) of the difference of two paired shares.

    >>> [round(end, 4) for end in score_interval(1, 9, 60, 0.95)]
    [-0.2483, -0.0373]
    >>> [round(end, 4) for end in score_interval(0, 0, 100, 0.95)]
    [-0.037, 0.037]
    """
    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    mean = (better - worse) / n
    return _where(better, worse, n, z, -1.0, mean), _where(better, worse, n, -z, mean, 1.0)


def _where(better: int, worse: int, n: int, z: float, low: float, high: float) -> float:
    """Find the true difference at which the score is z; it falls from `low` to `high`."""
    for _ in range(60):
        middle = (low + high) / 2
        if score(better, worse, n, middle) > z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def score(better: int, worse: int, n: int, at: float) -> float:
    """Return how many standard errors the paired difference lies above `at`, were that the true one (Tango 1998)."""
    b = -better - worse + (2 * n - better + worse) * at
    nuisance = (sqrt(max(b * b + 8 * n * worse * at * (1 - at), 0.0)) - b) / (4 * n)
    spread = n * (2 * nuisance + at * (1 - at))
    beyond = better - worse - n * at
    if spread < 1e-12:
        return 0.0 if abs(beyond) < 1e-9 else copysign(inf, beyond)
    return beyond / sqrt(spread)


def mcnemar(better: int, worse: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947): rows that only one of the two got right.

    >>> round(mcnemar(10, 2), 4)
    0.0386
    >>> mcnemar(0, 0)
    1.0
    """
    n, k = better + worse, min(better, worse)
    if n == 0:
        return 1.0
    if n > 1000:  # the normal approximation with continuity correction is exact enough here
        return 2 * (1 - _NORMAL.cdf(max(abs(better - worse) - 1, 0) / sqrt(n)))
    return min(1.0, 2 * float(sum(comb(n, i) for i in range(k + 1)) / 2**n))


def minimum_detectable(
    differences: Sequence[float],
    confidence: float,
    power: float = 0.8,
    *,
    groups: Sequence[int] = (),
    strata: Sequence[str] = (),
) -> float | None:
    """Return the smallest true difference that so many rows would show with `power`.

    None where the rows say nothing of that: there is one, or figures that are not 0 or 1 are all alike.
    """
    drawn = Drawn(differences, groups, strata)
    n = sum(len(sums) for sums, _ in drawn.units)
    if n < 2:
        return None
    error = drawn.standard_error
    if error == 0.0:  # no two rows differ: as if the next one might
        if not set(differences) <= {-1.0, 0.0, 1.0}:
            return None
        error = sqrt(1 / (n + 2) / n)
    return (_NORMAL.inv_cdf(1 - (1 - confidence) / 2) + _NORMAL.inv_cdf(power)) * error


def rows_for(difference: float, detectable: float, n: int) -> int:
    """Return how many rows would show a difference, where `n` rows show one of `detectable`.

    >>> rows_for(0.02, 0.04, 160)
    640
    """
    return ceil(n * (detectable / difference) ** 2 - 1e-9)
