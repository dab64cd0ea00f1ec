"""How often the same held-out rows were judged by: every look makes the next one say a little less.

A holdout that many candidates were chosen by is slowly learnt by heart, and shows them better than they are
(Dwork et al. 2015, Blum and Hardt 2015).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import pi

#: Marks kept of a holdout: the smallest of its rows' hashes (Broder 1997), enough to tell half from a third.
MARKS = 64
_DIGITS = 10


def marks(ids: Iterable[str]) -> list[str]:
    """Return the marks by which a holdout is known again, also once rows were added."""
    return sorted({blake2b(id.encode(), digest_size=_DIGITS // 2).hexdigest() for id in ids})[:MARKS]


def shared(a: Sequence[str], b: Sequence[str]) -> float:
    """Estimate what share of the rows of both holdouts together is in both.

    >>> shared(marks("abc"), marks("abc")), shared(marks("abc"), marks("xyz")), shared([], [])
    (1.0, 0.0, 0.0)
    """
    both = sorted({*a, *b})[:MARKS]
    ours, theirs = set(a), set(b)
    return sum(mark in ours and mark in theirs for mark in both) / len(both) if both else 0.0


def looks(now: Sequence[str], before: Iterable[Sequence[str]]) -> int:
    """Count the earlier candidates that were judged on mostly the same rows.

    `before` has the marks of each earlier judgement; at least half of the rows must be the same.
    """
    return sum(shared(now, earlier) >= 0.5 for earlier in before)


def confidence(asked: float, earlier: int) -> float:
    """Return the confidence to ask for so that all looks together err no more often than one would.

    The chance to err is spent in parts of 6 / (π² k²) for the k-th look, which sum to 1 over any number of looks. This
    holds for candidates that were not made with earlier verdicts in mind; for those that were nothing simple does.

    >>> round(confidence(0.95, 0), 4), round(confidence(0.95, 9), 5)
    (0.9696, 0.9997)
    """
    k = earlier + 1
    return 1 - (1 - asked) * 6 / (pi * k) ** 2
