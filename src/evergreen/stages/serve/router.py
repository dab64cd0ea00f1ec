"""Who answers whom. Pure."""

from __future__ import annotations

from hashlib import blake2b


def dial(salt: str, unit: str) -> float:
    """Return where a unit stands between 0 and 1; the same unit always stands there for the same salt.

    The salt is the challenger's id: a larger share only adds units, and the next challenger meets others.

    >>> dial("m1", "ann") == dial("m1", "ann") != dial("m2", "ann")
    True
    """
    return int.from_bytes(blake2b(f"{salt}\0{unit}".encode(), digest_size=8).digest()) / 2**64
