"""What values look like, in a few hundred counts: bins learnt once from a reference, in which newer values are counted."""

from __future__ import annotations

from base64 import b64decode, b64encode
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise
from math import inf, isfinite, nextafter
from typing import Literal

import msgspec

from evergreen.core.recipe import Described
from evergreen.stages.observe.drift.divergence import Unevenness, uneven

#: Bins of a number; categories that are counted one by one, and how often one must occur for that.
BINS, CATEGORIES, FREQUENT = 20, 30, 5
#: Features of a loop that are watched: those named first.
FEATURES = 100
#: Parts of a reference that are compared with each other, and the fewest rows of one.
BLOCKS, BLOCK_ROWS = 20, 50
#: Words that are remembered, the most frequent, in a filter of so many bits: 1 of 100 unknown ones passes for known.
WORDS, BITS, HASHES = 12_000, 1 << 17, 5
#: Longest name of a category that is kept.
LONGEST = 60

#: Larger numbers count as this one.
_HUGE = 1e300

Value = float | str | Sequence[str] | None


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is watched: how its values are put into bins, and how the reference fills them."""

    name: str
    kind: Literal["number", "category"]
    counts: list[int]  #: of the reference; the last bin is "missing", of a category the last but one "other"
    edges: list[float] = []  #: of a number: a value at most `edges[i]` is in bin i
    values: list[str] = []  #: of a category
    uneven: Unevenness = Unevenness(1.0)  #: how the blocks of the reference differ in its values
    gaps: Unevenness = Unevenness(1.0)  #: the same, in how often it is missing
    words: str = ""  #: the filter of known words, where the number is the share of unknown ones

    @property
    def missing(self) -> int:
        """Return the bin of rows without a value."""
        return len(self.counts) - 1


class Reference(msgspec.Struct, frozen=True):
    """What newer values are compared with. Holds no row, and no category that occurs only a few times."""

    rows: int
    block: int  #: rows of each block that `uneven` was measured on
    features: list[Feature]


class Pane(msgspec.Struct):
    """A part of the window: how many rows, and how they fill the bins of each feature."""

    n: int
    counts: list[list[int]]


def learn(rows: Sequence[Described]) -> Reference:
    """Sum up a reference, its rows in the order in which they came. Pure.

    >>> [(f.name, f.counts) for f in learn([{"x": 1.0, "k": "a"}] * 6).features]
    [('x', [0, 6, 0, 0]), ('k', [6, 0, 0])]
    """
    names = list(dict.fromkeys(name for row in rows for name in row))[:FEATURES]
    blocks = min(BLOCKS, len(rows) // BLOCK_ROWS)
    found = [_feature(name, [row.get(name) for row in rows], blocks) for name in names]
    return Reference(len(rows), len(rows) // blocks if blocks else len(rows), found)


def empty(reference: Reference) -> Pane:
    """Return a pane in which nothing is counted yet."""
    return Pane(0, [[0] * len(feature.counts) for feature in reference.features])


def count(reference: Reference, pane: Pane, row: Described) -> None:
    """Count one row."""
    pane.n += 1
    for feature, counts in zip(reference.features, pane.counts, strict=True):
        counts[place(feature, row.get(feature.name))] += 1


def total(reference: Reference, panes: Iterable[Pane]) -> Pane:
    """Add panes up."""
    whole = empty(reference)
    for pane in panes:
        whole.n += pane.n
        for counts, more in zip(whole.counts, pane.counts, strict=True):
            counts[:] = map(int.__add__, counts, more)
    return whole


def place(feature: Feature, value: Value) -> int:
    """Return the bin of a value; one of another kind than the reference's counts as missing.

    >>> number = Feature("x", "number", [5, 5, 5, 0], edges=[1.0, 2.0])
    >>> [place(number, v) for v in (0.5, 1.0, 1.5, 9.0, None, "a")]
    [0, 0, 1, 2, 3, 3]
    """
    if feature.kind == "category":
        if not isinstance(value, str):
            return feature.missing
        short = value[:LONGEST]
        return feature.values.index(short) if short in feature.values else len(feature.values)
    if feature.words:
        value = _unknown(feature.words, value)
    if value.__class__ not in (float, int) or not isfinite(value):
        return feature.missing
    return bisect_left(feature.edges, value)


def _feature(name: str, values: Sequence[Value], blocks: int) -> Feature:
    kinds = Counter(_kind(value) for value in values if value is not None)
    kind = kinds.most_common(1)[0][0] if kinds else "number"
    if kind == "category":
        shape = _category(name, values)
    elif kind == "words":
        shape, values = _words(name, values)
    else:
        shape = Feature(name, "number", [], edges=edges([v for v in values if _is_number(v)]))  # type: ignore[misc]
    width = len(shape.values) + 2 if shape.kind == "category" else len(shape.edges) + 2
    shape = msgspec.structs.replace(shape, counts=[0] * width)
    # The reference's own shares of unknown words are known already: they are numbers here.
    plain = msgspec.structs.replace(shape, words="")
    places = [place(plain, value) for value in values]
    size = len(places) // blocks if blocks else 0
    parts = [_tally(places[i * size : (i + 1) * size], width) for i in range(blocks)]
    values_only = [part[:-1] for part in parts] if shape.kind == "number" else parts
    return msgspec.structs.replace(
        shape,
        counts=_tally(places, width),
        uneven=uneven(values_only, ordered=shape.kind == "number"),
        gaps=uneven([[sum(part[:-1]), part[-1]] for part in parts], ordered=False),
    )


def _tally(places: Sequence[int], width: int) -> list[int]:
    counts = [0] * width
    for at in places:
        counts[at] += 1
    return counts


def _kind(value: Value) -> Literal["number", "category", "words"]:
    return "category" if isinstance(value, str) else "number" if isinstance(value, float | int) else "words"


def _is_number(value: Value) -> bool:
    return isinstance(value, float | int) and isfinite(value)


def edges(numbers: Sequence[float]) -> list[float]:
    """Return where bins end: between values where there are few, else at quantiles, none of them exact. Pure.

    >>> edges([0.0, 1.0, 1.0, 1.0]), edges([])
    ([-0.5, 0.5, 1.5], [])
    """
    ordered = sorted(numbers)
    unique = sorted(set(ordered))
    if not unique:
        return []
    if len(unique) == 1:  # whatever else comes is another value
        return [nextafter(unique[0], -inf), unique[0]]
    if len(unique) <= BINS:
        gap = min(b - a for a, b in pairwise(unique))
        between = [a + (b - a) / 2 for a, b in pairwise(unique)]
        return [unique[0] - gap / 2, *between, unique[-1] + gap / 2]
    cuts = [float(f"{ordered[len(ordered) * i // BINS]:.6g}") for i in range(1, BINS)]
    if cuts[0] <= ordered[0]:  # many rows have the lowest value: what is lower still must not be counted with it
        cuts.insert(0, nextafter(min(cuts[0], ordered[0]), -inf))
    return sorted(set(cuts))


def _category(name: str, values: Sequence[Value]) -> Feature:
    often = Counter(value[:LONGEST] for value in values if isinstance(value, str)).most_common(CATEGORIES)
    return Feature(name, "category", [], values=[value for value, n in often if n >= FREQUENT])


def _words(name: str, values: Sequence[Value]) -> tuple[Feature, list[Value]]:
    """Remember words, and say of each row which share of its words no other row has (after Good and Turing).

    That is what is to be expected of rows that are like these and not among them.
    """
    rows = [set(v) if isinstance(v, list | tuple) else None for v in values]
    rare = Counter(word for row in rows for word in row or ())
    known = bytearray(BITS // 8)
    for word, _ in rare.most_common(WORDS):
        for bit in _bits(word):
            known[bit >> 3] |= 1 << (bit & 7)
    shares: list[Value] = [sum(rare[w] == 1 for w in row) / len(row) if row else None for row in rows]
    cuts = edges([v for v in shares if _is_number(v)])  # type: ignore[misc]
    return Feature(name, "number", [], edges=cuts, words=b64encode(known).decode()), shares


_filters: dict[str, bytes] = {}


def _unknown(words: str, value: Value) -> float | None:
    """Return the share of words that the filter does not know (Bloom 1970)."""
    if not isinstance(value, list | tuple) or not value:
        return None
    known = _filters.get(words)
    if known is None:
        if len(_filters) > 20:
            _filters.clear()
        known = _filters[words] = b64decode(words)
    own = set(value)
    return sum(not all(known[bit >> 3] >> (bit & 7) & 1 for bit in _bits(word)) for word in own) / len(own)


def _bits(word: str) -> list[int]:
    digest = blake2b(str(word).encode("utf-8", "replace"), digest_size=4 * HASHES).digest()
    return [int.from_bytes(digest[i : i + 4]) % BITS for i in range(0, 4 * HASHES, 4)]


def described(row: Mapping[str, object]) -> Described:
    """Keep of a description what can be counted; numbers that are none are left out."""
    kept: dict[str, float | str | Sequence[str]] = {}
    for name, value in row.items():
        if isinstance(value, bool):
            kept[str(name)] = str(value).lower()
        elif isinstance(value, str | list | tuple) or (isinstance(value, float | int) and isfinite(value)):
            kept[str(name)] = min(max(float(value), -_HUGE), _HUGE) if isinstance(value, float | int) else value
    return kept
