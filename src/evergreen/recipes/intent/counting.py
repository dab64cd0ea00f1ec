"""Texts as a sparse matrix of counts, and as the features that models learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.recipes.intent import words

#: Runs of characters that a linear model counts, shortest and longest.
RUNS = (2, 4)
#: How much a run of characters counts beside a word; there are about ten times as many.
_RUN_SHARE = 0.5
#: Longer names are not worth their place; where no spaces are written, a sentence is one word.
_LONGEST = 40


@dataclass(frozen=True)
class Counted:
    """How often each name occurs in each text."""

    names: tuple[str, ...]
    counts: Any  #: sparse (texts, names) of float64
    are_runs: Any  #: (names,) of bool

    def only(self, columns: Any) -> Counted:
        """Return the same texts with some of the names."""
        kept = tuple(self.names[i] for i in columns)
        return Counted(kept, self.counts[:, columns].tocsr(), self.are_runs[columns])


def count(texts: Sequence[str], *, runs: tuple[int, int] | None = RUNS, least: int = 2) -> Counted:
    """Count words, pairs of words and runs that occur in at least so many texts; if nothing does, everything."""
    import numpy as np
    from scipy import sparse

    place: dict[str, int] = {}
    columns: list[int] = []
    times: list[int] = []
    ends = [0]
    for text in texts:
        found = Counter(words.names(words.words(text), 2, runs))
        columns += [place.setdefault(name, len(place)) for name in found]
        times += found.values()
        ends.append(len(columns))
    shape = (len(texts), max(len(place), 1))
    counts = sparse.csr_matrix(
        (np.array(times, dtype=np.float64), np.array(columns, dtype=np.int64), ends), shape=shape
    )
    names = np.array([*place] or [" "], dtype=object)
    order = np.argsort(names, kind="stable")
    short = np.array([len(name) <= _LONGEST for name in names[order]])
    order = order[short] if short.any() else order
    often = documents(counts)[order] >= least
    order = order[often] if often.any() else order
    kept = tuple(names[order])
    return Counted(kept, counts[:, order].tocsr(), np.array([name.startswith(words.RUN) for name in kept]))


def documents(counts: Any) -> Any:
    """Return in how many texts each name occurs."""
    import numpy as np

    return np.bincount(counts.indices, minlength=counts.shape[1])


def idf(counted: Counted, power: float) -> Any:
    """Return what each name counts: (log((1 + texts) / (1 + texts with it)) + 1) ^ power, as 32-bit floats.

    Runs of characters count less than words.
    """
    import numpy as np

    n = counted.counts.shape[0]
    plain = (np.log((1 + n) / (1 + documents(counted.counts))) + 1) ** power
    return (plain * np.where(counted.are_runs, _RUN_SHARE, 1.0)).astype(np.float32)


def features(counts: Any, factors: Any) -> Any:
    """Return counts × factors with an L2 norm of 1 for each row, sparse and in 64 bits."""
    import numpy as np
    from scipy import sparse

    scaled = sparse.csr_matrix(counts @ sparse.diags(factors.astype(np.float64)))
    norms = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1.0 / np.where(norms > 0, norms, 1.0)) @ scaled)


def matrix(names: Sequence[str], texts: Sequence[str]) -> Any:
    """Count known names in texts: sparse (texts, names) of float64."""
    import numpy as np
    from scipy import sparse

    known = words.Vocabulary(names)
    found = [known.count(text) for text in texts]
    ends = np.concatenate([[0], np.cumsum([len(counts) for counts in found])])
    columns = np.array([at for counts in found for at in counts], dtype=np.int64)
    times = np.array([n for counts in found for n in counts.values()], dtype=np.float64)
    return sparse.csr_matrix((times, columns, ends), shape=(len(texts), len(names)))
