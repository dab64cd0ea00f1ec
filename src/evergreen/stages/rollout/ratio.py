"""Whether each variant meets the share of units it was promised, however often one looks. Pure.

Source: Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, lgamma, log

#: A mismatch is certain enough at one in a thousand.
CERTAIN = 0.001
#: How many units the mixture's guess of the shares is worth.
_WORTH = 100.0


def chance(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Bound the probability that shares as promised give counts as odd as these at this look or any before: 0 to 1.

    The smallest value seen at any look is still a bound. `shares` sum to 1.

    >>> chance([5050, 4950], [0.5, 0.5]), chance([560, 440], [0.5, 0.5]) < 0.02, chance([5300, 4700], [0.5, 0.5]) < 1e-5
    (1.0, True, True)
    """
    known = [(n, share) for n, share in zip(counts, shares, strict=True) if share > 0]
    if sum(n for n, share in zip(counts, shares, strict=True) if share <= 0):
        return 0.0  # somebody met what nobody was to meet
    log_e = lgamma(_WORTH) - lgamma(_WORTH + sum(n for n, _ in known))
    for n, share in known:
        prior = _WORTH * share
        log_e += lgamma(prior + n) - lgamma(prior) - n * log(share)
    return exp(-log_e) if log_e > 0 else 1.0
