"""The four kinds of models: how scikit-learn fits them, and what scores they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log2
from typing import Any

from evergreen.recipes.tabular.options import ModelKind

KINDS: tuple[ModelKind, ...] = ("random_forest", "gradient_boosting", "logistic", "svm")
#: Support vectors cost the square of the rows; more than this many are thinned out, evenly.
SVM_ROWS = 5000
#: Added to every share of the votes of a forest.
LEAST_VOTE = 0.005
_SLICES = 10
#: Each slice of boosting sorts the rows into bins anew, which takes long with weights.
_BOOSTING_SLICES = 4
#: Is told how many trees of how many there are.
Step = Callable[[int, int], None]


@dataclass(frozen=True)
class Model:
    """A fitted scikit-learn classifier whose classes are 0, 1, 2 …, and what it was fitted on."""

    kind: ModelKind
    estimator: Any
    classes: int
    rows: int

    def scores(self, x: Any) -> Any:
        """Return one score for each row and class, as 64-bit floats; a softmax of them gives probabilities.

        For a forest the logarithm of its votes (a little added, so that none is zero), else the decision function.
        """
        import numpy as np

        if self.kind == "random_forest":
            return np.log(self.estimator.predict_proba(x) + LEAST_VOTE)
        decided = self.estimator.decision_function(x.astype(np.float64))
        if decided.ndim == 1:
            return np.stack([np.zeros_like(decided), decided], axis=1)
        return decided

    def decide(self, x: Any) -> Any:
        """Return scikit-learn's decisions: the place of a class for each row."""
        import numpy as np

        return self.estimator.predict(x if self.kind == "random_forest" else x.astype(np.float64))


def fit(
    kind: ModelKind,
    x: Any,
    y: Any,
    weights: Any,
    *,
    trees: int = 100,
    seed: int = 0,
    threads: int = 1,
    step: Step | None = None,
) -> Model:
    """Fit one model to `x` (n × d, 32-bit floats), `y` (0, 1, … for n rows; each class there) and weights.

    The numbers a tree adds up are rounded so that 32-bit sums of them are exact: ONNX then decides as
    scikit-learn does, whatever the order of the sum.
    """
    import sklearn.ensemble  # noqa: F401  (a limit only reaches the thread pools that are there)
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    told = step or _nobody
    with threadpool_limits(threads):
        if kind == "random_forest":
            model = _forest(x, y, weights, trees, seed, threads, told)
        elif kind == "gradient_boosting":
            model = _boosting(x, y, weights, trees, seed, told)
        elif kind == "logistic":
            model = _logistic(x, y, weights)
        else:
            model = _svm(x, y, weights)
    told(1, 1)
    return model


def _nobody(done: int, total: int) -> None:
    """Tell nobody."""


def _forest(x: Any, y: Any, weights: Any, trees: int, seed: int, threads: int, step: Step) -> Model:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_estimators=0, random_state=seed, n_jobs=threads, warm_start=True)
    for part in range(_SLICES):
        until = trees * (part + 1) // _SLICES
        if until > forest.n_estimators:
            forest.set_params(n_estimators=until)
            forest.fit(x, y, sample_weight=weights)
            step(until, trees)
    forest.set_params(n_jobs=1)
    grid = 2.0 ** (23 - ceil(log2(trees + 1)))
    for tree in forest.estimators_:
        values = tree.tree_.value
        values[:] = (values * grid).round() / grid
    return Model("random_forest", forest, int(y.max()) + 1, len(y))


def _boosting(x: Any, y: Any, weights: Any, rounds: int, seed: int, step: Step) -> Model:
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingClassifier

    boosted = HistGradientBoostingClassifier(max_iter=1, random_state=seed, early_stopping=False, warm_start=True)
    for part in range(_BOOSTING_SLICES):
        until = rounds * (part + 1) // _BOOSTING_SLICES
        if until > 0:
            boosted.set_params(max_iter=until)
            boosted.fit(x.astype(np.float64), y, sample_weight=None if weights.min() == weights.max() else weights)
            step(until, rounds)
    leaves = [tree.nodes for level in boosted._predictors for tree in level]
    start = boosted._baseline_prediction
    reach = np.abs(start).max() + sum(float(np.abs(nodes["value"]).max()) for nodes in leaves) + 1.0
    grid = 2.0 ** (23 - ceil(log2(reach)))
    for nodes in leaves:
        nodes["value"] = np.round(nodes["value"] * grid) / grid
    start[:] = np.round(start * grid) / grid
    return Model("gradient_boosting", boosted, int(y.max()) + 1, len(y))


def _logistic(x: Any, y: Any, weights: Any) -> Model:
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    pipeline.fit(x.astype(np.float64), y, logisticregression__sample_weight=weights)
    return Model("logistic", pipeline, int(y.max()) + 1, len(y))


def _svm(x: Any, y: Any, weights: Any) -> Model:
    import numpy as np
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    kept = thinned(y, SVM_ROWS)
    pipeline = make_pipeline(StandardScaler(), SVC(C=10.0, break_ties=True))
    pipeline.fit(x[kept].astype(np.float64), y[kept], svc__sample_weight=weights[kept])
    return Model("svm", pipeline, int(y.max()) + 1, len(kept))


def thinned(y: Any, most: int) -> Any:
    """Return the places of at most about `most` rows, spread evenly in time; two of every class stay at least."""
    import numpy as np

    if len(y) <= most:
        return np.arange(len(y))
    kept = set(np.linspace(0, len(y) - 1, most).astype(int).tolist())
    for c in np.unique(y):
        kept.update(np.flatnonzero(y == c)[-2:].tolist())
    return np.array(sorted(kept))
