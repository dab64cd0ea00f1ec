"""The proof, made at every training, that the graph decides exactly as scikit-learn does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from evergreen.core.errors import JobFailed
from evergreen.recipes.intent import counting
from evergreen.recipes.intent.predictor import Graph
from evergreen.recipes.intent.training import Fitted

_MOST = 4000
_SPACES = ("  ", "\t", "\n", "\u00a0", "\u2003", "\u200b")
_MARKS = (
    "!",
    "?",
    "…",
    "'",
    "''",
    "_",
    "-",
    "’",
    "\u0301",
    "😀",
    "👍🏽",
    "𝒳",
    "½",
    "中",
    "İ",
    "ß",
    "Σ",
    "é",
    "\x00",
    "#",
)


def prove(fitted: Fitted, graph: Graph, seed: int) -> int:
    """Compare decisions on texts learned from and on shaken ones; return how many were compared.

    Raises `JobFailed` at the first that differs.
    """
    rng = Random(seed)  # noqa: S311  (nothing here is secret)
    texts = list(fitted.texts)
    texts = rng.sample(texts, _MOST) if len(texts) > _MOST else texts
    texts += [*shaken(texts[: _MOST // 2], rng), "", " ", "'", "😀", "a" * 2000]
    places, _ = graph.decide(texts)
    expected = _trained(fitted, texts)
    wrong = [i for i, (ours, theirs) in enumerate(zip(places, expected, strict=True)) if ours != theirs]
    if wrong:
        raise JobFailed(
            f"the ONNX graph decides otherwise than scikit-learn in {len(wrong)} of {len(texts)} texts, "
            f"first for {texts[wrong[0]]!r}",
            hint="This is a mistake in the export; please report it with the versions in the manifest.",
        )
    return len(texts)


def _trained(fitted: Fitted, texts: Sequence[str]) -> Any:
    """Return scikit-learn's decisions as places of answers."""
    import numpy as np

    described, estimator = fitted.described, fitted.model.estimator
    x = counting.features(counting.matrix(described.names, texts), described.idf)
    x = x if described.kind == "linear" else x.astype(np.float32)
    decided = estimator.predict(x)
    if described.limit is None:
        return decided
    scores = estimator.decision_function(x) if described.kind == "linear" else estimator.predict_proba(x)
    highest = np.abs(scores) if scores.ndim == 1 else scores.max(axis=1)
    return np.where(highest < described.limit, len(described.labels), decided)


def shaken(texts: Sequence[str], rng: Random) -> Iterator[str]:
    """Return each text in another case, with other spaces, with marks and letters from elsewhere, or cut."""
    for text in texts:
        way = rng.randrange(6)
        at = rng.randrange(len(text) + 1)
        if way == 0:
            yield rng.choice((text.upper(), text.title(), text.swapcase()))
        elif way == 1:
            yield text.replace(" ", rng.choice(_SPACES))
        elif way == 2:
            yield text[:at] + rng.choice(_MARKS) + text[at:]
        elif way == 3:
            yield "".join(rng.choice(_MARKS) if rng.random() < 0.1 else c for c in text)
        elif way == 4:
            yield text[:at]
        else:
            other = rng.choice(texts)
            yield f"{text[:at]}{other[rng.randrange(len(other) + 1) :]}"
