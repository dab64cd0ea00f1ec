"""The kinds of models: how scikit-learn fits them, what they count, and what they are in plain arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any

from evergreen.recipes.intent import counting
from evergreen.recipes.intent.counting import Counted
from evergreen.recipes.intent.described import Forest, Linear, Tree
from evergreen.recipes.intent.options import ModelKind

#: Names that a forest counts, the most frequent ones: the document's 5,000.
FOREST_NAMES = 5000
#: Most weights of a linear model, one byte each: what a phone downloads.
_MOST_WEIGHTS = 4_000_000
#: How strongly a linear model heeds how rare a name is. Between 0.25 and 0.5 is best where texts are short.
_POWER = 0.5
_SLICES = 5
#: Is told how many parts of how many are fitted.
Step = Callable[[int, int], None]


@dataclass(frozen=True)
class Setting:
    """One way to learn: the kind of model and how freely it may fit."""

    kind: ModelKind
    c: float = 1.0  #: for `linear`: the price of a mistake
    trees: int = 100  #: for `random_forest`
    most: int = 12_000  #: names counted by a linear model


@dataclass(frozen=True)
class Model:
    """A fitted scikit-learn classifier whose classes are places of labels, and the names it counts."""

    setting: Setting
    estimator: Any
    labels: int  #: how many there are, with those that no row was there for
    counted: Any  #: places of the counted names among those given
    idf: Any
    levels: Any = field(default=None)  #: for `linear`: (names, labels) of int8
    steps: Any = field(default=None)

    def scores(self, counts: Any) -> Any:
        """Return one score for each row of counts (of all names given) and label."""
        import numpy as np

        x = counting.features(counts[:, self.counted], self.idf)
        if self.setting.kind == "linear":
            found = _both(self.estimator.decision_function(x))
        else:
            found = self.estimator.predict_proba(x.astype(np.float32))
        scores = np.full((counts.shape[0], self.labels), found.min(initial=0.0))
        scores[:, self.estimator.classes_] = found
        return scores

    def described(self) -> Linear | Forest:
        """Return the model in plain arrays. Every label must have been there."""
        import numpy as np

        if self.setting.kind == "random_forest":
            return Forest([_tree(estimator.tree_) for estimator in self.estimator.estimators_])
        starts = self.estimator.intercept_
        starts = np.array([-starts[0], starts[0]]) if len(starts) == 1 else starts
        return Linear(self.levels, self.steps, starts.astype(np.float64))


def fit(
    setting: Setting,
    given: Counted,
    y: Any,
    weights: Any,
    labels: int,
    *,
    seed: int,
    threads: int,
    select: bool = True,
    step: Step | None = None,
) -> Model:
    """Fit one model to counts, the places of labels, and weights.

    `select` keeps the names with the largest weights and fits again, as far as there are more than `setting.most`.
    """
    import sklearn.ensemble  # noqa: F401  (a limit only reaches the thread pools that are there)
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    told = step or _nobody
    with threadpool_limits(threads):
        if setting.kind == "linear":
            return _linear(setting, given, y, weights, labels, seed, select, told)
        return _forest(setting, given, y, weights, labels, seed, threads, told)


def _nobody(done: int, total: int) -> None:
    """Tell nobody."""


def _both(decided: Any) -> Any:
    """Give each of two labels a score where scikit-learn has one for both."""
    import numpy as np

    return np.stack([-decided, decided], axis=1) if decided.ndim == 1 else decided


def _linear(
    setting: Setting, given: Counted, y: Any, weights: Any, labels: int, seed: int, select: bool, step: Step
) -> Model:
    """Fit support vectors, one label against the rest, and round their weights to 255 levels for each label."""
    import numpy as np

    columns = np.flatnonzero(counting.documents(given.counts) > 0)
    most = min(setting.most, max(_MOST_WEIGHTS // labels, 500))
    parts = 2 if select and len(columns) > most else 1
    estimator, idf = _vectors(setting, given, columns, y, weights, seed)
    step(1, parts)
    if parts == 2:
        largest = np.argsort(-np.square(estimator.coef_).sum(axis=0), kind="stable")[:most]
        columns = columns[np.sort(largest)]
        estimator, idf = _vectors(setting, given, columns, y, weights, seed)
        step(2, 2)
    coefficients = _both(estimator.coef_[0]).T if len(estimator.coef_) == 1 else estimator.coef_
    steps = np.maximum(np.abs(coefficients).max(axis=1), 1e-12) / 127
    levels = np.round(coefficients / steps[:, None]).astype(np.int8)
    rounded = levels * steps[:, None]
    estimator.coef_ = rounded[1:] if len(estimator.coef_) == 1 else rounded
    return Model(setting, estimator, labels, columns, idf, np.ascontiguousarray(levels.T), steps)


def _vectors(setting: Setting, given: Counted, columns: Any, y: Any, weights: Any, seed: int) -> tuple[Any, Any]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    counted = given.only(columns)
    idf = counting.idf(counted, _POWER)
    estimator = LinearSVC(C=setting.c, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as good as it gets after 1,000 rounds
        estimator.fit(counting.features(counted.counts, idf), y, sample_weight=weights)
    return estimator, idf


def _forest(
    setting: Setting, given: Counted, y: Any, weights: Any, labels: int, seed: int, threads: int, step: Step
) -> Model:
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    often = np.where(given.are_runs, 0, counting.documents(given.counts))
    columns = np.sort(np.argsort(-often, kind="stable")[: min(FOREST_NAMES, max(int((often > 0).sum()), 1))])
    counted = given.only(columns)
    idf = counting.idf(counted, 1.0)
    x = counting.features(counted.counts, idf).astype(np.float32)
    forest = RandomForestClassifier(n_estimators=0, random_state=seed, n_jobs=threads, warm_start=True)
    for part in range(_SLICES):
        until = setting.trees * (part + 1) // _SLICES
        if until > forest.n_estimators:
            forest.set_params(n_estimators=until)
            forest.fit(x, y, sample_weight=weights)
            step(until, setting.trees)
    forest.set_params(n_jobs=1)
    grid = 2.0 ** (23 - ceil(log2(setting.trees + 1)))
    for tree in forest.estimators_:
        values = tree.tree_.value
        values[:] = (values * grid).round() / grid
    return Model(setting, forest, labels, columns, idf)


def _tree(tree: Any) -> Tree:
    return Tree(
        tree.children_left, tree.children_right, tree.feature, _rounded_down(tree.threshold), tree.value[:, 0, :]
    )


def _rounded_down(threshold: Any) -> Any:
    """Return the largest 32-bit float not above each threshold: x <= t is then the same for every 32-bit x."""
    import numpy as np

    single = threshold.astype(np.float32)
    return np.where(single.astype(np.float64) > threshold, np.nextafter(single, np.float32(-np.inf)), single)
