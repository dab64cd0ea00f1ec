"""Choices made by cross-validation: the kind of model, its temperature, and from where on a text is out of scope."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any

from evergreen.core.records import Json
from evergreen.recipes.intent import models
from evergreen.recipes.intent.counting import Counted
from evergreen.recipes.intent.described import LEAST_VOTE
from evergreen.recipes.intent.models import Setting
from evergreen.recipes.intent.options import IntentOptions

Report = Callable[[str, int, int, Mapping[str, float]], None]

#: Prices of a mistake that "linear" tries; the first is taken where there is nothing to try on.
PRICES = (1.0, 0.3, 3.0)
_FOLDS = 3
#: Rows up to which "auto" tries a forest: beyond, one takes longer than all the rest together.
_FOREST_ROWS = 5000
#: Rows from which on only the first price is tried: the right one hardly matters there, and each takes minutes.
_MANY_ROWS = 30_000
#: Rows labelled out of scope from which on they tell where the scope ends.
FEWEST_OUTSIDE = 10


@dataclass(frozen=True)
class Trial:
    """What every choice is made on."""

    counted: Counted
    y: Any  #: (n,) places of labels
    given: Any  #: (n,) weights
    keys: Sequence[str]  #: rows of one key stay together
    outside: Any  #: counts of the rows labelled out of scope
    labels: int
    options: IntentOptions
    seed: int
    threads: int


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what it was chosen from."""

    setting: Setting
    temperature: float = 1.0
    limit: float | None = None
    scores: Any = None  #: (n, labels): each row scored by a model that has not seen it; None where there were too few
    tried_on: Any = None  #: (n,) of bool: the rows that were scored so
    why: str = ""  #: where the limit is from
    table: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class _Tried:
    setting: Setting
    scores: Any
    scored: Any
    outside: Any
    right: Any  #: for each row scored, its weight if the highest score is that of its label; weights are 1 on average
    loss: float
    temperature: float

    @property
    def accuracy(self) -> float:
        """Return the weighted share of rows that are right."""
        return float(self.right.mean())


def choose(trial: Trial, report: Report) -> Choice:
    """Decide what the options leave open. One that comes later must be clearly more accurate than those before it."""
    settings = _settings(trial)
    place = folds(trial.y, trial.keys, _FOLDS, trial.seed)
    parts = [part for part in range(_FOLDS) if _usable(trial, place, part)]
    if not parts:
        return Choice(settings[0], table={"note": "too few rows to try anything on"}, why="nothing is out of scope")
    tried: list[_Tried] = []
    for i, setting in enumerate(settings):
        done = i * len(parts)

        def told(part: int, done: int = done) -> None:
            report("cross-validate", done + part, len(settings) * len(parts), {})

        tried.append(_try(trial, setting, place, parts, told))
    best = tried[0]
    for other in tried[1:]:
        best = other if _clearly_better(other, best) else best
    limit, why = _limit(trial, best)
    table: dict[str, Json] = {
        "rows": int(best.scored.sum()),
        "folds": len(parts),
        "tried": [
            {
                "model": t.setting.kind,
                "c": t.setting.c if t.setting.kind == "linear" else None,
                "accuracy": round(t.accuracy, 4),
                "log_likelihood": round(-t.loss, 4),
            }
            for t in tried
        ],
    }
    if trial.outside.shape[0]:
        table["oos_auroc"] = round(auroc(best.scores[best.scored].max(axis=1), best.outside), 4)
    return Choice(best.setting, best.temperature, limit, best.scores, best.scored, why, table)


def _clearly_better(one: _Tried, other: _Tried) -> bool:
    """Say whether it is more accurate by more than the standard error, row by row in pairs."""
    gained = one.right - other.right
    return bool(gained.mean() > gained.std() / len(gained) ** 0.5)


def _settings(trial: Trial) -> list[Setting]:
    options = trial.options
    forest = Setting("random_forest", trees=options.trees)
    prices = PRICES if len(trial.y) < _MANY_ROWS else PRICES[:1]
    linear = [Setting("linear", c, most=options.max_features) for c in prices]
    if options.model == "random_forest":
        return [forest]
    if options.model == "auto" and len(trial.y) <= _FOREST_ROWS:
        return [*linear, forest]
    return linear


def folds(y: Any, keys: Sequence[str], parts: int, seed: int) -> Any:
    """Return a fold for each row. Rows of one key come together; each label is spread as evenly as that allows."""
    import numpy as np

    first: dict[str, int] = {}
    group = np.array([first.setdefault(key, len(first)) for key in keys])
    members: list[list[int]] = [[] for _ in first]
    for row, at in enumerate(group.tolist()):
        members[at].append(row)
    shuffled = np.random.default_rng(seed).permutation(len(members))
    of_label = np.zeros((int(y.max()) + 1, parts))
    total = np.zeros(parts)
    place = np.zeros(len(y), dtype=np.int64)
    for at in sorted(shuffled.tolist(), key=lambda g: -len(members[g])):
        rows = members[at]
        label = y[rows[0]]
        fold = min(range(parts), key=lambda p: (of_label[label, p], total[p]))
        place[rows] = fold
        total[fold] += len(rows)
        np.add.at(of_label[:, fold], y[rows], 1)
    return place


def _usable(trial: Trial, place: Any, part: int) -> bool:
    """Say whether a fold has rows to try on, and two labels to learn from."""
    import numpy as np

    return bool((place == part).any()) and len(np.unique(trial.y[place != part])) > 1


def _try(trial: Trial, setting: Setting, place: Any, parts: Sequence[int], told: Callable[[int], None]) -> _Tried:
    import numpy as np

    counted, y = trial.counted, trial.y
    scores = np.zeros((len(y), trial.labels))
    outside = []
    for i, part in enumerate(parts):
        early, late = np.flatnonzero(place != part), np.flatnonzero(place == part)
        learned = Counted(counted.names, counted.counts[early], counted.are_runs)
        model = models.fit(
            setting,
            learned,
            y[early],
            trial.given[early],
            trial.labels,
            seed=trial.seed,
            threads=trial.threads,
            select=False,
        )
        scores[late] = model.scores(counted.counts[late])
        if trial.outside.shape[0]:
            outside.append(model.scores(trial.outside).max(axis=1))
        told(i + 1)
    scored = np.isin(place, parts)
    given = trial.given[scored] if trial.given[scored].sum() > 0 else np.ones(int(scored.sum()))
    s, right = logits(setting.kind, scores[scored]), y[scored]
    t = temperature(s, right, given)
    return _Tried(
        setting,
        scores,
        scored,
        np.concatenate(outside) if outside else np.zeros(0),
        (s.argmax(axis=1) == right) * given / given.mean(),
        float(np.average(_losses(s / t, right), weights=given)),
        t,
    )


def logits(kind: str, scores: Any) -> Any:
    """Return what a softmax of makes probabilities, from scores."""
    import numpy as np

    return scores if kind == "linear" else np.log(scores + LEAST_VOTE)


def probabilities(kind: str, scores: Any, limit: float | None, temperature: float) -> Any:
    """Return probabilities (n, labels), with a column for out of scope at the end if there is a limit."""
    import numpy as np

    if limit is not None:
        scores = np.concatenate([scores, np.full((len(scores), 1), limit)], axis=1)
    scaled = logits(kind, scores) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _limit(trial: Trial, best: _Tried) -> tuple[float | None, str]:
    """Return the score below which a text is out of scope, and how it was found.

    The highest score tells what is out of scope better than the highest probability does: a text with no known words
    has low scores for every label, but its probabilities still add up to 1.
    """
    import numpy as np

    inside = best.scores[best.scored].max(axis=1)
    weights = trial.given[best.scored]
    if trial.outside.shape[0] >= FEWEST_OUTSIDE:
        return _balanced(inside, weights, best.outside), (
            f"chosen on {trial.outside.shape[0]:,} rows labelled out of scope, for the best mean of two shares: of these "
            "refused and of the others let in"
        )
    if trial.options.refuse == 0:
        return None, "nothing is out of scope"
    order = np.argsort(inside, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    at = min(int(np.searchsorted(share, trial.options.refuse, side="right")), len(order) - 1)
    return float(inside[order[at]]), f"chosen so that {trial.options.refuse:.1%} of the rows kept back would be refused"


def _balanced(inside: Any, weights: Any, outside: Any) -> float:
    """Return the limit with the best balanced accuracy: the mean of the shares let in and refused rightly."""
    import numpy as np

    values = np.concatenate([inside, outside])
    order = np.argsort(values, kind="stable")
    lost = np.cumsum(np.concatenate([weights / weights.sum(), np.zeros(len(outside))])[order])
    refused = np.cumsum(np.concatenate([np.zeros(len(inside)), np.full(len(outside), 1 / len(outside))])[order])
    at = int(np.argmax(refused - lost))
    after = values[order[min(at + 1, len(order) - 1)]]
    return float((values[order[at]] + after) / 2)


def auroc(inside: Any, outside: Any) -> float:
    """Return how often a text within scope has a higher score than one outside (Mann–Whitney)."""
    from scipy.stats import rankdata

    if not len(outside):
        return 0.0
    ranks = rankdata([*inside, *outside])[: len(inside)]
    return float((ranks.mean() - (len(inside) + 1) / 2) / len(outside))


def temperature(scores: Any, y: Any, given: Any) -> float:
    """Return the T that makes softmax(scores / T) most likely (Guo et al. 2017), by golden section on log T.

    A pull towards T = 1, worth two rows, keeps classes that are told apart without a mistake from certainty.
    """
    share = given / given.sum()

    def cost(log_t: float) -> float:
        return float((_losses(scores / exp(log_t), y) * share).sum()) + 2.0 * log_t**2 / len(y)

    low, high, ratio = -4.0, 3.0, (5**0.5 - 1) / 2
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
