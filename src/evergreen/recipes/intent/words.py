"""How a text becomes counted names: words, pairs of words, and runs of characters inside words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

#: What a word is. An apostrophe inside a word belongs to it.
PATTERN = r"[^\W_]+(?:'[^\W_]+)*"
#: The mark before a run of characters, which no word can begin with.
RUN = "#"
_find = re.compile(PATTERN).findall


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case.

    >>> words("Don't turn_off the LIGHT!")
    ["don't", 'turn', 'off', 'the', 'light']
    """
    return _find(text.lower())


def plain(text: str) -> str:
    """Return the words of a text with one space between them: what the graph reads."""
    return " ".join(_find(text.lower()))


def names(found: Sequence[str], most: int, runs: tuple[int, int] | None) -> list[str]:
    """Return the name of everything counted in words: up to `most` words in a row, and runs of a length within `runs`.

    A run that is a whole word with its two spaces is left out: it would be counted exactly as the word is.

    >>> names(["go", "on"], 2, (2, 3))
    ['go', 'on', 'go on', '# g', '#go', '#o ', '# go', '#go ', '# o', '#on', '#n ', '# on', '#on ']
    """
    every = list(found)
    for n in range(2, most + 1):
        every += [" ".join(found[i : i + n]) for i in range(len(found) - n + 1)]
    if runs is not None:
        low, high = runs
        for word in found:
            padded = f" {word} "
            for n in range(low, min(high, len(padded) - 1) + 1):
                every += [RUN + padded[i : i + n] for i in range(len(padded) - n + 1)]
    return every


class Vocabulary:
    """Known names and their places; counts them in a text as a phone does."""

    def __init__(self, known: Iterable[str]) -> None:
        self.names = tuple(known)
        self._place = {name: i for i, name in enumerate(self.names)}
        self._most = max((name.count(" ") + 1 for name in self.names if not name.startswith(RUN)), default=1)
        lengths = [len(name) - len(RUN) for name in self.names if name.startswith(RUN)]
        self._runs = (min(lengths), max(lengths)) if lengths else None
        self._whole = any(name.startswith(f"{RUN} ") and name.endswith(" ") for name in self.names)

    def count(self, text: str) -> dict[int, int]:
        """Return how often each known name occurs, by its place."""
        found = words(text)
        every = names(found, self._most, self._runs)
        if self._whole:
            every += [f"{RUN} {word} " for word in found]
        counts: dict[int, int] = {}
        place = self._place.get
        for name in every:
            at = place(name)
            if at is not None:
                counts[at] = counts.get(at, 0) + 1
        return counts
