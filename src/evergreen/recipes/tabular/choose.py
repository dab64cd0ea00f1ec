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
HALF_LIVES = (0.5, 0.15, 0.05)
_FOLDS = 2
#: Trees of a comparison; more would not change its outcome.
_TREES = 50
#: A temperature fitted on fewer rows than this says nothing.
_FEWEST = 20
#: Old rows never vanish altogether; kernels and priors stay in place.
_LEAST = 1e-3


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
    rows: int
    temperature: float
    accuracy: float
    log_likelihood: float


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
    steps = len(kinds) + len(lives) - 1
    tried: list[_Tried] = []
    for kind in kinds:
        tried.append(_try(trial, folds, kind, lives[0]))
        report("cross-validate", len(tried), steps, {"accuracy": tried[-1].accuracy})
    best = max(tried, key=lambda t: t.log_likelihood)
    for life in lives[1:]:
        tried.append(_try(trial, folds, best.kind, life))
        report("cross-validate", len(tried), steps, {"accuracy": tried[-1].accuracy})
    best = max(tried, key=lambda t: t.log_likelihood)
    table: dict[str, Json] = {
        "folds": "growing window over time" if _in_time(trial, folds) else "stratified",
        "rows": best.rows,
        "tried": [
            {
                "model": t.kind,
                "half_life": t.half_life,
                "accuracy": round(t.accuracy, 4),
                "log_likelihood": round(t.log_likelihood, 4),
            }
            for t in tried
        ],
    }
    return Choice(best.kind, best.half_life, best.temperature if options.calibrate else 1.0, table)


def _half_lives(recency: float | str, n: int) -> list[float | None]:
    if recency == "none":
        return [None]
    if recency == "auto":
        return [None, *(share * n for share in HALF_LIVES)]
    return [float(recency)]


def splits(trial: Trial, parts: int) -> list[tuple[Any, Any]]:
    """Return places to learn from and to try on: later rows are tried on earlier ones, if the rows have times.

    Rows of classes that the earlier ones do not have cannot be tried; where too few stay, folds are stratified.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    y, n = trial.y, len(trial.y)
    if trial.timely and n >= 5 * _FEWEST:
        ends = [n - part * (n // 6) for part in reversed(range(parts))]
        pairs = [(np.arange(end - n // 6), np.arange(end - n // 6, end)) for end in ends]
        folds = [(early, late[np.isin(y[late], np.unique(y[early]))]) for early, late in pairs]
        if all(len(np.unique(y[early])) == y.max() + 1 and 2 * len(late) > n // 6 for early, late in folds):
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
    return _Tried(kind, half_life, len(y), t, accuracy, -_loss(s / t, y, given))


def temperature(scores: Any, y: Any, given: Any) -> float:
    """Return the T that makes softmax(scores / T) most likely (Guo et al. 2017), by golden section on log T.

    A pull towards T = 1, worth two rows, keeps classes that are told apart without a mistake from certainty.
    """

    def cost(log_t: float) -> float:
        return _loss(scores / exp(log_t), y, given) + 2.0 * log_t**2 / len(y)

    low, high, ratio = -3.0, 3.0, (5**0.5 - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if cost(left) <= cost(right):
            high = right
        else:
            low = left
    return exp((low + high) / 2)


def _loss(scores: Any, y: Any, given: Any) -> float:
    import numpy as np

    shifted = scores - scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]
    return float(np.average(losses, weights=given))
