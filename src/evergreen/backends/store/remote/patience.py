"""Asking a far server again: pauses that double, with jitter, and what the server itself wants to have waited."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Tries of one request before giving up, and bounds of one pause in seconds. 8 tries wait about half a minute in all.
TRIES, FIRST_S, MOST_S = 8, 0.25, 20.0


def patiently(
    ask: Callable[[], T],
    wait_s: Callable[[Exception], float | None],
    *,
    tries: int = TRIES,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Ask until it is answered. `wait_s` says of an error how long its server wants to be left alone (0: no word).

    None means that asking again would not help: the error is raised, as is the one after the last try.

    >>> answers = iter([OSError("busy"), "yes"])
    >>> def ask():
    ...     if isinstance(answer := next(answers), Exception):
    ...         raise answer
    ...     return answer
    >>> patiently(ask, lambda e: 0.0, sleep=lambda s: None)
    'yes'
    """
    for turn in range(1, tries):
        try:
            return ask()
        except Exception as e:
            wanted = wait_s(e)
            if wanted is None:
                raise
            pause = min(MOST_S, FIRST_S * 2 ** (turn - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
            sleep(max(pause, wanted))
    return ask()
