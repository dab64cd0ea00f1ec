"""A share of right answers that may fall: the window of ADWIN, of counts. Pure.

Source: Bifet and Gavaldà, Learning from Time-Changing Data with Adaptive Windowing (2007), their second bound. Blocks of
counts stand where theirs are single bits, so that an answer is never stored, and the whole is a few dozen numbers.
"""

from __future__ import annotations

from itertools import pairwise
from math import log, sqrt

import msgspec

#: Chance of a false cut, over all the places where one is looked for.
DELTA = 0.002
#: Blocks that are kept, and the fewest answers on either side of a cut.
MOST, FEWEST = 48, 20


class Quality(msgspec.Struct):
    """What labels say of one model's answers."""

    blocks: list[tuple[int, int]] = []  #: answers and how many of them were right, the oldest first
    level: float = 0.0  #: the share that was right before it fell; the highest there was
    fallen: bool = False

    @property
    def judged(self) -> int:
        """Return how many answers the present share rests on."""
        return sum(n for n, _ in self.blocks)

    @property
    def share(self) -> float:
        """Return the present share of right answers."""
        return sum(right for _, right in self.blocks) / max(self.judged, 1)


def learn(known: Quality, judged: int, right: int, fall: float) -> Quality:
    """Take in answers that labels came for; say whether the share has fallen by at least `fall`, or is back.

    >>> q = Quality()
    >>> for right in [9] * 40 + [4] * 20:
    ...     q = learn(q, 10, right, fall=0.05)
    >>> q.fallen, round(q.level, 1), round(q.share, 1)
    (True, 0.9, 0.4)
    """
    blocks = _merged([*known.blocks, (judged, right)])
    level = known.level
    while (at := cut(blocks)) is not None:
        level = max(level, _share(blocks[:at]))
        blocks = blocks[at:]
    now = Quality(blocks, level)
    enough = now.judged >= FEWEST
    gap = level - now.share if level else 0.0
    now.fallen = (enough and gap >= fall) or (known.fallen and (not enough or gap >= fall / 2))
    return now


def cut(blocks: list[tuple[int, int]]) -> int | None:
    """Return where the older part ends that has another share than the newer, if there is such a place."""
    n, right = sum(b[0] for b in blocks), sum(b[1] for b in blocks)
    if n < 2 * FEWEST:
        return None
    variance = right / n * (1 - right / n)
    surprise = log(2 * log(n) / DELTA)
    before = hits = 0
    for i, (m, good) in enumerate(blocks[:-1], 1):
        before, hits = before + m, hits + good
        after = n - before
        if before < FEWEST or after < FEWEST:
            continue
        harmonic = 1 / (1 / before + 1 / after)
        bound = sqrt(2 / harmonic * variance * surprise) + 2 / (3 * harmonic) * surprise
        if abs(hits / before - (right - hits) / after) > bound:
            return i
    return None


def _share(blocks: list[tuple[int, int]]) -> float:
    return sum(b[1] for b in blocks) / max(sum(b[0] for b in blocks), 1)


def _merged(blocks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Keep the number of blocks small: of neighbours, those are made one that are small beside all that came later."""
    merged = list(blocks)
    while len(merged) > MOST:
        newer = sum(n for n, _ in merged)
        best, least = 0, float("inf")
        for i, (one, two) in enumerate(pairwise(merged[:-1])):
            newer -= one[0]
            ratio = (one[0] + two[0]) / (newer - two[0] + 1)
            if ratio < least:
                best, least = i, ratio
        one, two = merged[best : best + 2]
        merged[best : best + 2] = [(one[0] + two[0], one[1] + two[1])]
    return merged
