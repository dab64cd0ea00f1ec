"""Who answers whom. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b


def dial(salt: str, unit: str) -> float:
    """Return where a unit stands between 0 and 1; the same unit always stands there for the same salt.

    The salt is the challenger's id: a larger share only adds units, and the next challenger meets others.

    >>> dial("m1", "ann") == dial("m1", "ann") != dial("m2", "ann")
    True
    """
    return int.from_bytes(blake2b(f"{salt}\0{unit}".encode(), digest_size=8).digest()) / 2**64


def choose(salt: str, unit: str, shares: Sequence[float]) -> int | None:
    """Return which arm of an experiment a unit meets, None for the champion.

    Whether it meets an arm at all, and which, are two draws: where all shares grow alike, units are only added, and
    those that met an arm stay with it.

    >>> met = [choose("x1", str(n), (0.2, 0.1)) for n in range(1000)]
    >>> met.count(0), met.count(1), met.count(None)
    (191, 103, 706)
    """
    total = sum(shares)
    if dial(salt, unit) >= total:
        return None
    place = dial(f"{salt}/arm", unit) * total
    for arm, share in enumerate(shares):
        place -= share
        if place < 0:
            return arm
    return len(shares) - 1
