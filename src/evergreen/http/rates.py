"""How many calls one caller may make: a bucket for each, in memory, that fills up again as time passes."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

from evergreen.core.errors import TooMany

#: Callers that are remembered; those whose buckets are full again are forgotten first.
_CALLERS = 20_000
#: A bucket holds this many seconds' worth of calls.
BURST_S = 5.0


class Rates:
    """Buckets of one size. A bucket is one number, the moment at which it will be full again (Virtual Scheduling, ITU-T I.371)."""

    def __init__(
        self, per_second: float, *, burst_s: float = BURST_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._step = 1.0 / per_second if per_second else 0.0  # 0: no limit
        self._burst_s = max(burst_s, self._step)  # one call is always let through
        self._clock = clock
        self._full: dict[str, float] = {}

    def spend(self, who: str) -> None:
        """Take one call out of a caller's bucket. Raises `TooMany` if it is empty."""
        if not self._step:
            return
        now = self._clock()
        full = self._full.get(who, now)
        if full < now:
            full = now
        full += self._step
        if full - now > self._burst_s + 1e-9:
            raise self._too_many(full - now)
        if len(self._full) >= _CALLERS and who not in self._full:
            self._forget(now)
        self._full[who] = full

    def check(self, who: str) -> None:
        """Raise `TooMany` if the next call would; takes nothing."""
        now = self._clock()
        ahead = self._full.get(who, now) - now + self._step
        if self._step and ahead > self._burst_s + 1e-9:
            raise self._too_many(ahead)

    def _too_many(self, ahead: float) -> TooMany:
        return TooMany(after_s=ahead - self._burst_s)

    def _forget(self, now: float) -> None:
        """Forget full buckets; where all are in use, the half that is the fullest."""
        used = sorted((full, who) for who, full in self._full.items() if full > now)
        self._full = {who: full for full, who in used[len(used) // 2 if len(used) >= _CALLERS else 0 :]}


def neighbourhood(address: str) -> str:
    """Return what an address is counted by: an IPv4 address itself, of IPv6 the /64 that one household has.

    >>> neighbourhood("192.0.2.7"), neighbourhood("2001:db8::1:2"), neighbourhood("::ffff:192.0.2.7"), neighbourhood("")
    ('192.0.2.7', '2001:db8::/64', '192.0.2.7', '')
    """
    if ":" not in address:
        return address
    try:
        six = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(six.ipv4_mapped or ipaddress.IPv6Network((int(six) >> 64 << 64, 64)))
