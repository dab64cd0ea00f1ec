"""Choices made by cross-validation that respects time: the model, the recency weights, the temperature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import exp
from typing import Any

from evergreen.core.records import Json
from evergreen.recipes.tabular import models
from evergreen.recipes.tabular.options import ModelKind, TabularOptions

#: Half-lives that "auto" tries, as shares of the training rows.
HALF_LIVES = (0.15, 0.05)
_FOLDS = 2
#: Trees of a comparison; more would not change its outcome.
_TREES = 50
#: A temperature fitted on fewer rows than this says nothing.
_FEWEST = 20
#: However old, a row counts this much: it still teaches what nothing newer contradicts.
_LEAST = 0.02


@dataclass(frozen=True)
class Trial:
    """What every choice is made on."""

    x: Any
    y: Any
    given: Any  #: the weights of the rows
    options: TabularOptions
    timely: bool  #: rows come in the order of time
    seed: int
    threads: int


@dataclass(frozen=True)
class Choice:
    """What was chosen, and the table it was chosen from."""

    kind: ModelKind
    half_life: float | None  #: in rows
    temperature: float = 1.0
    table: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class _Tried:
    kind: ModelKind
    half_life: float | None
    temperature: float
    accuracy: float
    losses: Any  #: -log likelihood of each row tried × its weight, which are 1 on average

    @property
    def loss(self) -> float:
        """Return the weighted mean loss."""
        return float(self.losses.mean())


def weights(y: Any, given: Any, half_life: float | None, class_weight: str) -> Any:
    """Return given weight × recency × class weight for each row, scaled to a mean of 1."""
    import numpy as np

    total = given.astype(np.float64)
    if half_life is not None:
        age = np.arange(len(y))[::-1]
        total = total * np.maximum(0.5 ** (age / half_life), _LEAST)
    if class_weight == "balanced":
        sums = np.bincount(y, weights=total)
        total = total * (total.sum() / (len(sums) * sums))[y]
    return total / total.mean()


def choose(trial: Trial, report: Callable[[str, int, int, Mapping[str, float]], None]) -> Choice:
    """Decide what the options leave open: "auto" for the model and the recency, and the temperature."""
    options = trial.options
    kinds = models.KINDS if options.model == "auto" else (options.model,)
    lives = _half_lives(options.recency, len(trial.y))
    open_choice = len(kinds) * len(lives) > 1
    folds = splits(trial, _FOLDS if open_choice else 1)
    if not folds or not (open_choice or options.calibrate):
        return Choice(kinds[0], lives[0], table={"note": "too few rows to compare"} if open_choice else {})
    tried: list[_Tried] = []

    def attempt(kind: ModelKind, life: float | None) -> _Tried:
        tried.append(_try(trial, folds, kind, life))
        report("cross-validate", len(tried), len(kinds) + len(lives) - 1, {"accuracy": tried[-1].accuracy})
        return tried[-1]

    best = min((attempt(kind, lives[0]) for kind in kinds), key=lambda t: t.loss)
    aged = min((attempt(best.kind, life) for life in lives[1:]), key=lambda t: t.loss, default=best)
    best = aged if _clearly_better(aged, best) else best
    table: dict[str, Json] = {
        "folds": "growing window over time" if _in_time(trial, folds) else "stratified",
        "rows": len(best.losses),
        "tried": [
            {
                "model": t.kind,
                "half_life": t.half_life,
                "accuracy": round(t.accuracy, 4),
                "log_likelihood": round(-t.loss, 4),
            }
            for t in tried
        ],
    }
    return Choice(best.kind, best.half_life, best.temperature if options.calibrate else 1.0, table)


def _clearly_better(aged: _Tried, plain: _Tried) -> bool:
    """Say whether the mean loss is lower by more than its standard error, row by row in pairs."""
    gained = plain.losses - aged.losses
    return bool(gained.mean() > gained.std() / len(gained) ** 0.5)


def _half_lives(recency: float | str, n: int) -> list[float | None]:
    if recency == "none":
        return [None]
    if recency == "auto":
        return [None, *(share * n for share in HALF_LIVES)]
    return [float(recency)]


def splits(trial: Trial, parts: int) -> list[tuple[Any, Any]]:
    """Return places to learn from and to try on: later rows are tried on earlier ones, if the rows have times.

    The newest fifth is tried: a drift shows there first. Where classes come one after the other, folds are stratified.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    y, n = trial.y, len(trial.y)
    if trial.timely and n >= 5 * _FEWEST:
        size = n // (5 * parts)
        ends = [n - part * size for part in reversed(range(parts))]
        folds = [(np.arange(end - size), np.arange(end - size, end)) for end in ends]
        if all(len(np.unique(y[early])) == y.max() + 1 and len(np.unique(y[late])) > 1 for early, late in folds):
            return folds
    smallest = int(np.bincount(y).min())
    if smallest < 2 or n < 2 * _FEWEST:
        return []
    shuffled = StratifiedKFold(max(2, min(5 if parts == 1 else parts, smallest)), shuffle=True, random_state=trial.seed)
    return list(shuffled.split(trial.x, y))[: parts if parts > 1 else 1]


def _in_time(trial: Trial, folds: list[tuple[Any, Any]]) -> bool:
    return trial.timely and all(early[-1] < late[0] for early, late in folds)


def _try(trial: Trial, folds: list[tuple[Any, Any]], kind: ModelKind, half_life: float | None) -> _Tried:
    import numpy as np

    options, scores = trial.options, []
    trees = min(options.trees, _TREES) if kind == "random_forest" else options.trees
    for early, late in folds:
        w = weights(trial.y[early], trial.given[early], half_life, options.class_weight)
        model = models.fit(kind, trial.x[early], trial.y[early], w, trees=trees, seed=trial.seed, threads=trial.threads)
        scores.append(model.scores(trial.x[late]))
    late = np.concatenate([late for _, late in folds])
    s, y, given = np.concatenate(scores), trial.y[late], trial.given[late]
    t = temperature(s, y, given)
    accuracy = float(np.average(s.argmax(axis=1) == y, weights=given))
    return _Tried(kind, half_life, t, accuracy, _losses(s / t, y) * given / given.mean())


def temperature(scores: Any, y: Any, given: Any) -> float:
    """Return the T that makes softmax(scores / T) most likely (Guo et al. 2017), by golden section on log T.

    A pull towards T = 1, worth two rows, keeps classes that are told apart without a mistake from certainty.
    """

    share = given / given.sum()

    def cost(log_t: float) -> float:
        return float((_losses(scores / exp(log_t), y) * share).sum()) + 2.0 * log_t**2 / len(y)

    low, high, ratio = -3.0, 3.0, (5**0.5 - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if cost(left) <= cost(right):
            high = right
        else:
            low = left
    return exp((low + high) / 2)


def _losses(scores: Any, y: Any) -> Any:
    import numpy as np

    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]
