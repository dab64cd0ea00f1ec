"""Writes a trained intent model as a CoreML file for phones, with nothing but the rules of the format.

What the file holds. Input `counts`: a dictionary from names to how often each occurs in the text; it must hold no name
that is not among `evergreen.names` in the metadata (one name a line), and is not empty: for a text with none of them,
give the first name the count 0. Outputs `intent`, a string, and `intentProbability`, a dictionary from labels to
numbers. One label, usually `out_of_scope` (`evergreen.outside`), stands for texts that mean none of the intents: the
model itself answers it, there is nothing to compare on the phone. Inside is a pipeline: dictVectorizer (the names, in
order), scaler (inverse document frequencies), normalizer (Euclidean length 1), and a classifier. It needs iOS 12.

How a phone counts; `evergreen.features` in the metadata, and `features.json`, have the particulars. It lower-cases the
text and finds words: runs of letters and numbers, with apostrophes between such (`pattern` for Python; `icu`, the same
for NSRegularExpression). Counted are, with `words` = 2 and `runs` = [3, 5]: every word ("turn"); every two words in a
row with one space between ("turn off"); and of every word, with one space put before and after it, every piece of 3 to
5 characters, written after a "#" ("#tur", "# tu", "#rn "), save a piece that is the whole padded word. `runs` is null
where no pieces are counted. Characters are Unicode scalars, not UTF-16 units and not Swift's `Character`.

Classifiers. A linear model is a neural network of one dense layer (whole numbers of 8 bits, a factor for each label),
then softmax: labels and probabilities are those that the server gives. Set `MLModelConfiguration.computeUnits` to
`.cpuOnly`: other units calculate in 16 bits. A forest is a tree ensemble: labels are those that the server gives; the
numbers are votes v of the trees, each times the same factor. Divide by their sum for shares. The server's probabilities
are (v / (factor × trees) + 0.005)^(1 / temperature), divided by their sum (`evergreen.votes`, what v of all trees
together is; `evergreen.temperature`).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evergreen.core.errors import JobFailed
from evergreen.recipes.intent.described import Described, Forest, Linear, Tree
from evergreen.recipes.intent.words import PATTERN, RUN

#: The number of a field and its value; bytes are text, messages and packed numbers.
_Field = tuple[int, bytes | str | int | float]

_VERSION = 3  # iOS 12: the first that knows quantised weights
_DOUBLE = 65600
_LEAF = 6
_ROUNDING = 2e-6
#: What `words.PATTERN` finds, for regular expressions after ICU: there \w also has marks and lacks some numbers.
ICU = r"[\p{L}\p{N}]+(?:'[\p{L}\p{N}]+)*"
#: Nodes of a forest that a phone, and our own reader, will bear.
MOST_NODES = 1_000_000


def write(path: Path, described: Described, version: str = "", about: Mapping[str, str] | None = None) -> None:
    """Write the model to `path`. `version` and `about` (keys of your own) go into the metadata.

    Raises `JobFailed` for a forest that is too large for a phone.
    """
    width = len(described.names)
    counts = _feature("counts", _DICTIONARY, "How often each name occurs in the text; see evergreen.features.")
    answers = [
        _feature("intent", _STRING, "What is meant."),
        _feature("intentProbability", _DICTIONARY, "The probability of each intent."),
    ]
    vector = _array(width)
    steps = [
        _model(_step(counts, _feature("named", vector)), (603, _message((1, _strings(described.names))))),
        _model(
            _step(_feature("named", vector), _feature("weighted", vector)),
            (604, _message((1, _doubles([0.0])), (2, _doubles(described.idf)))),
        ),
        _model(_step(_feature("weighted", vector), _feature("features", vector)), (607, _message((1, 2)))),
        _model(_classifier(_feature("features", vector), answers), _last(described)),
    ]
    names = ("count", "weigh", "norm", "decide")
    named = [(2, name.encode()) for name in names]
    pipeline = _message(*[(1, step) for step in steps], *named)
    outer = _classifier(counts, answers) + _message((100, _metadata(described, version, about or {})))
    path.write_bytes(_model(outer, (200, _message((1, pipeline)))))


def _last(described: Described) -> tuple[int, bytes]:
    """Return the classifier at the end and the field it is stored under."""
    if isinstance(described.model, Linear):
        return 403, _network(described, described.model)
    return 402, _trees(described, described.model)


def _network(described: Described, linear: Linear) -> bytes:
    """Dense layer of whole numbers, a factor and a start for each label, softmax. The label outside has no weights."""
    import numpy as np

    levels = np.asarray(linear.levels, np.int64).T
    factors = np.asarray(linear.steps, np.float64) / described.temperature
    starts = np.asarray(linear.intercepts, np.float64) / described.temperature
    if described.limit is not None:
        # A score that equals the limit must not be lost to 32-bit rounding.
        limit = described.limit - _ROUNDING * max(1.0, abs(described.limit))
        levels = np.vstack([levels, np.zeros((1, levels.shape[1]), np.int64)])
        factors, starts = np.append(factors, 1.0), np.append(starts, limit / described.temperature)
    k, width = levels.shape
    table = _message((1, np.arange(-128, 128).astype("<f4").tobytes()))
    weights = _message((30, (levels + 128).astype(np.uint8).tobytes()), (40, _message((1, 8), (102, table))))
    scale: list[_Field] = [(1, _varint(k)), (2, _singles(factors)), (3, 1), (4, _varint(k)), (5, _singles(starts))]
    layers = [
        _layer("dense", "features", "sums", 140, _message((1, width), (2, k), (20, weights))),
        _layer("factors", "sums", "scores", 245, _message(*scale)),
        _layer("softmax", "scores", "probabilities", 175, b""),
    ]
    return _message(*[(1, layer) for layer in layers], (100, _strings(described.answers)), (200, "probabilities"))


def _layer(name: str, given: str, made: str, field: int, parameters: bytes) -> bytes:
    return _message((1, name), (2, given), (3, made), (field, parameters))


def _trees(described: Described, forest: Forest) -> bytes:
    """All votes, and of the label outside a constant, all times a power of two: then sums of votes stay exact."""
    if sum(len(tree.left) for tree in forest.trees) > MOST_NODES:
        raise JobFailed(
            f"the forest has more than {MOST_NODES:,} nodes, too many for a phone",
            kind="configuration",
            hint="Set fewer trees, or model = linear, or coreml = false.",
        )
    base = [0.0] * len(described.answers)
    if described.limit is not None:
        base[-1] = _least(described.limit, len(forest.trees))
    factor = _factor(len(forest.trees), base[-1])
    nodes = b"".join(
        _message((1, node)) for number, tree in enumerate(forest.trees) for node in _nodes(tree, number, factor)
    )
    ensemble = nodes + _message((2, len(base)), (3, _doubles([value * factor for value in base])))
    return _message((1, ensemble), (100, _strings(described.answers)))


def _least(limit: float, trees: int) -> float:
    """Return the smallest sum of votes that, divided by the number of trees, is not below the limit.

    Votes are whole multiples of a power of two, fine enough that they could be added up in 32 bits.
    """
    grid = 2.0 ** (23 - math.ceil(math.log2(trees + 1)))
    multiple = math.floor(limit * trees * grid) - 2
    while multiple / grid / trees < limit:
        multiple += 1
    return multiple / grid


def _factor(trees: int, least: float) -> float:
    """Return the power of two that brings all votes together between a half and 1."""
    return 2.0 ** -math.ceil(math.log2(trees + least))


def _nodes(tree: Tree, number: int, factor: float) -> Iterable[bytes]:
    import numpy as np

    thresholds = _between(np.asarray(tree.threshold))
    for i in range(len(tree.left)):
        if tree.left[i] >= 0:
            branch = [(10, int(tree.feature[i])), (11, float(thresholds[i]))]
            yield _message((1, number), (2, i), *branch, (12, int(tree.left[i])), (13, int(tree.right[i])))
            continue
        given = np.flatnonzero(tree.votes[i])
        votes = [(20, _message((1, int(j)), (2, float(tree.votes[i, j]) * factor))) for j in given]
        yield _message((1, number), (2, i), (3, _LEAF), *(votes or [(20, _message((1, 0), (2, 0.0)))]))


def _between(thresholds: Any) -> Any:
    """Return 64-bit thresholds by which 64-bit features go where they would if rounded to 32 bits first.

    Half way to the next 32-bit number; exactly there, rounding goes to the even one of the two.
    """
    import numpy as np

    single = thresholds.astype(np.float32)
    half = (single.astype(np.float64) + np.nextafter(single, np.float32(np.inf)).astype(np.float64)) / 2
    even = single.view(np.uint32) % 2 == 0
    return np.where(even, half, np.nextafter(half, -np.inf))


def _metadata(described: Described, version: str, about: Mapping[str, str]) -> bytes:
    said = {
        **about,
        "evergreen.names": "\n".join(described.names),
        "evergreen.features": json.dumps(features(described.names), ensure_ascii=False),
        "evergreen.kind": described.kind,
        "evergreen.labels": json.dumps(described.answers, ensure_ascii=False),
        "evergreen.temperature": repr(float(described.temperature)),
    }
    if described.limit is not None:
        said |= {"evergreen.limit": repr(float(described.limit)), "evergreen.outside": described.outside}
    if isinstance(described.model, Forest):
        trees = len(described.model.trees)
        least = _least(described.limit, trees) if described.limit is not None else 0.0
        said["evergreen.votes"] = repr(trees * _factor(trees, least))
    short = "Tells the intent of a text from how often words occur in it."
    entries = b"".join(_message((100, _message((1, key), (2, value)))) for key, value in said.items())
    return _message((1, short), (2, version), (3, "Evergreen")) + entries


def features(names: Iterable[str]) -> dict[str, Any]:
    """Say how a phone counts: the pattern of a word, how many words in a row, which lengths of runs of characters."""
    words = [name for name in names if not name.startswith(RUN)]
    lengths = [len(name) - len(RUN) for name in names if name.startswith(RUN)]
    return {
        "lower": True,
        "pattern": PATTERN,
        "icu": ICU,
        "words": max((name.count(" ") + 1 for name in words), default=1),
        "runs": [min(lengths), max(lengths)] if lengths else None,
    }


def _model(description: bytes, kind: tuple[int, bytes]) -> bytes:
    return _message((1, _VERSION), (2, description), kind)


def _step(given: bytes, made: bytes) -> bytes:
    return _message((1, given), (10, made))


def _classifier(given: bytes, answers: list[bytes]) -> bytes:
    return _message((1, given), *[(10, each) for each in answers], (11, "intent"), (12, "intentProbability"))


def _feature(name: str, kind: bytes, what: str = "") -> bytes:
    return _message((1, name), *([(2, what)] if what else []), (3, kind))


def _array(width: int) -> bytes:
    return _message((5, _message((1, _varint(width)), (2, _DOUBLE))))


def _strings(values: Iterable[str]) -> bytes:
    return _message(*[(1, value) for value in values])


def _doubles(values: Any) -> bytes:
    return b"".join(struct.pack("<d", float(value)) for value in values)


def _singles(values: Any) -> bytes:
    return _message((1, b"".join(struct.pack("<f", float(value)) for value in values)))


def _message(*fields: _Field) -> bytes:
    """Encode fields by number as protobuf does: whole numbers, 64-bit floats, and bytes (text, messages, packed numbers)."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [_varint(number << 3), _varint(value)]
        elif isinstance(value, float):
            parts += [_varint(number << 3 | 1), struct.pack("<d", value)]
        else:
            data = value.encode() if isinstance(value, str) else value
            parts += [_varint(number << 3 | 2), _varint(len(data)), data]
    return b"".join(parts)


def _varint(value: int) -> bytes:
    """Encode a whole number from 0 up, seven bits at a time.

    >>> _varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_STRING = _message((3, b""))
_DICTIONARY = _message((6, _message((2, b""))))
