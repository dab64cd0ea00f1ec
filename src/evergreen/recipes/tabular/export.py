"""A fitted model as an ONNX graph that decides exactly as scikit-learn does, and the proof of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evergreen.core.errors import JobFailed
from evergreen.recipes.tabular.models import LEAST_VOTE, Model

_OPSET = [("", 17), ("ai.onnx.ml", 3)]
_IR = 9
#: A protobuf file must be smaller than 2 GiB; a tree node takes about 40 bytes of it.
_MOST_NODES = 40_000_000


def write(model: Model, width: int, temperature: float, path: Path) -> None:
    """Write the graph: `x` (n × width, 32-bit floats) in; `label` (the place of a class) and `probabilities` out.

    We build it ourselves instead of converting, because a converter divides the votes of a forest by the number of
    trees before adding them up in 32 bits, and then ties break by rounding.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph()
    scores, single = graph.trees(model) if model.kind in ("random_forest", "gradient_boosting") else graph.kernel(model)
    graph.node("ArgMax", [scores], "label", axis=1, keepdims=0)
    if model.kind == "random_forest":
        scores = graph.node(
            "Log",
            [graph.node("Add", [scores, graph.constant([LEAST_VOTE * len(model.estimator.estimators_)], single)])],
        )
    scaled = graph.node("Mul", [scores, graph.constant([1.0 / temperature], single)])
    if single:
        graph.node("Softmax", [scaled], "probabilities", axis=1)
    else:
        graph.node("Cast", [graph.node("Softmax", [scaled], axis=1)], "probabilities", to=TensorProto.FLOAT)
    drawn = helper.make_graph(
        graph.nodes,
        "tabular",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, model.classes]),
        ],
        graph.constants,
    )
    whole = helper.make_model(drawn, opset_imports=[helper.make_opsetid(*o) for o in _OPSET], ir_version=_IR)
    onnx.save(whole, path)


class _Graph:
    """Nodes and constants of a graph that is being drawn."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(
        self, operator: str, inputs: list[str], name: str | None = None, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output and return the name of that."""
        from onnx import helper

        output = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, values: Any, single: bool = False) -> str:
        """Add an array and return its name."""
        import numpy as np
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        array = np.ascontiguousarray(values, dtype=np.float32 if single else np.float64)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def trees(self, model: Model) -> tuple[str, bool]:
        """Add a forest or boosted trees; the output is what their leaves add up to."""
        import numpy as np

        trees = _forest(model.estimator) if model.kind == "random_forest" else _boosted(model.estimator, model.classes)
        if sum(len(t["left"]) for t in trees) > _MOST_NODES:
            raise JobFailed(
                "the trees are too large for an ONNX file",
                kind="configuration",
                hint="Set fewer trees, or dataset.max_train.",
            )
        built: dict[str, Any] = {f"nodes_{k}": [] for k in ("treeids", "nodeids", "featureids", "modes", "values")}
        built |= {"nodes_truenodeids": [], "nodes_falsenodeids": []}
        built |= {f"target_{k}": [] for k in ("treeids", "nodeids", "ids", "weights")}
        for number, tree in enumerate(trees):
            n, leaf = len(tree["left"]), tree["leaf"]
            built["nodes_treeids"] += [number] * n
            built["nodes_nodeids"] += range(n)
            built["nodes_featureids"] += np.where(leaf, 0, tree["feature"]).tolist()
            built["nodes_modes"] += np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
            built["nodes_values"] += np.where(leaf, 0.0, _rounded_down(tree["threshold"])).tolist()
            built["nodes_truenodeids"] += np.where(leaf, 0, tree["left"]).tolist()
            built["nodes_falsenodeids"] += np.where(leaf, 0, tree["right"]).tolist()
            # Every leaf gives something to every class it knows of; zeros are left out, but not whole leaves.
            at, target = np.nonzero((tree["values"] != 0) & leaf[:, None])
            bare = np.flatnonzero(leaf & ~(tree["values"] != 0).any(axis=1))
            built["target_treeids"] += [number] * (len(at) + len(bare))
            built["target_nodeids"] += at.tolist() + bare.tolist()
            built["target_ids"] += (target + tree["target"]).tolist() + [tree["target"]] * len(bare)
            built["target_weights"] += tree["values"][at, target].tolist() + [0.0] * len(bare)
        if model.kind == "gradient_boosting":
            built["base_values"] = _start(model)
        built |= {"n_targets": model.classes, "aggregate_function": "SUM"}
        return self.node("TreeEnsembleRegressor", ["x"], None, "ai.onnx.ml", **built), True

    def kernel(self, model: Model) -> tuple[str, bool]:
        """Add a scaler and a logistic regression or support vectors, in 64 bits."""
        from onnx import TensorProto

        scaler, last = model.estimator[0], model.estimator[-1]
        x = self.node("Cast", ["x"], to=TensorProto.DOUBLE)
        x = self.node("Div", [self.node("Sub", [x, self.constant(scaler.mean_)]), self.constant(scaler.scale_)])
        return (self._logistic(x, last) if model.kind == "logistic" else self._vectors(x, last)), False

    def _logistic(self, x: str, regression: Any) -> str:
        import numpy as np

        coefficients, start = regression.coef_, regression.intercept_
        if len(coefficients) == 1:
            coefficients, start = np.vstack([np.zeros_like(coefficients), coefficients]), np.array([0.0, start[0]])
        return self.node("Add", [self.node("MatMul", [x, self.constant(coefficients.T)]), self.constant(start)])

    def _vectors(self, x: str, svc: Any) -> str:
        """Add the kernel exp(-gamma |x - v|²), the decision of each pair of classes, and their votes.

        The score of a class is its votes plus its summed margins s, squeezed to s / (3 (|s| + 1)) so that they only
        break ties: scikit-learn's `decision_function_shape="ovr"`.
        """
        from onnx import TensorProto

        vectors = svc.support_vectors_
        squares = self.node("ReduceSum", [self.node("Mul", [x, x]), self._axis()], keepdims=1)
        cross = self.node("MatMul", [x, self.constant(-2.0 * vectors.T)])
        distance = self.node("Add", [self.node("Add", [squares, cross]), self.constant((vectors**2).sum(axis=1))])
        kernel = self.node("Exp", [self.node("Mul", [distance, self.constant([-svc._gamma])])])
        weights, start, first, second = _pairs(svc)
        margin = self.node("Add", [self.node("MatMul", [kernel, self.constant(weights)]), self.constant(start)])
        if len(svc.classes_) == 2:
            return self.node("MatMul", [margin, self.constant([[0.0, -1.0]])])
        # A margin below 0 is a vote for the second class of the pair, else for the first.
        below = self.node("Cast", [self.node("Less", [margin, self.constant([0.0])])], to=TensorProto.DOUBLE)
        votes = self.node(
            "Add", [self.node("MatMul", [below, self.constant(second - first)]), self.constant(first.sum(axis=0))]
        )
        summed = self.node("MatMul", [margin, self.constant(first - second)])
        size = self.node(
            "Mul", [self.node("Add", [self.node("Abs", [summed]), self.constant([1.0])]), self.constant([3.0])]
        )
        return self.node("Add", [votes, self.node("Div", [summed, size])])

    def _axis(self) -> str:
        import numpy as np
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"))
        return "axis"


def _pairs(svc: Any) -> tuple[Any, Any, Any, Any]:
    """Return what each support vector adds to each pair of classes, the intercepts, and which classes a pair is of."""
    import numpy as np

    k, coefficients = len(svc.classes_), svc._dual_coef_
    starts = np.concatenate([[0], np.cumsum(svc._n_support)])
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    weights = np.zeros((coefficients.shape[1], len(pairs)))
    first, second = np.zeros((len(pairs), k)), np.zeros((len(pairs), k))
    for p, (i, j) in enumerate(pairs):
        of_i, of_j = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        weights[of_i, p] = coefficients[j - 1, of_i]
        weights[of_j, p] = coefficients[i, of_j]
        first[p, i] = second[p, j] = 1.0
    return weights, svc._intercept_, first, second


def _rounded_down(threshold: Any) -> Any:
    """Return the largest 32-bit float not above each threshold: x <= t is then the same for every 32-bit x."""
    import numpy as np

    single = threshold.astype(np.float32)
    return np.where(single.astype(np.float64) > threshold, np.nextafter(single, np.float32(-np.inf)), single)


def _forest(forest: Any) -> list[dict[str, Any]]:
    trees = [estimator.tree_ for estimator in forest.estimators_]
    return [
        {
            "left": t.children_left,
            "right": t.children_right,
            "leaf": t.children_left < 0,
            "feature": t.feature,
            "threshold": t.threshold,
            "values": t.value[:, 0, :],
            "target": 0,
        }
        for t in trees
    ]


def _boosted(boosted: Any, classes: int) -> list[dict[str, Any]]:
    return [
        {
            "left": tree.nodes["left"].astype(int),
            "right": tree.nodes["right"].astype(int),
            "leaf": tree.nodes["is_leaf"].astype(bool),
            "feature": tree.nodes["feature_idx"].astype(int),
            "threshold": tree.nodes["num_threshold"],
            "values": tree.nodes["value"][:, None],
            "target": 1 if classes == 2 else target,
        }
        for level in boosted._predictors
        for target, tree in enumerate(level)
    ]


def _start(model: Model) -> list[float]:
    start = [float(v) for v in model.estimator._baseline_prediction.ravel()]
    return [0.0, *start] if model.classes == 2 else start


def prove(model: Model, session: Any, x: Any, seed: int, most: int = 20_000) -> int:
    """Compare the graph's decisions with scikit-learn's and return how many were compared.

    On the rows themselves (at most `most`), on rows whose cells were shuffled and shaken, and on rows that lie exactly
    on thresholds of the trees. Raises `JobFailed` at the first that differs.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    x = x[-most:]
    mixed = np.stack([rng.permutation(column) for column in x.T], axis=1)
    shaken = (x + rng.normal(0.0, 0.05, x.shape) * x.std(axis=0)).astype(np.float32)
    tried = np.concatenate([x, mixed, shaken, _on_thresholds(model, mixed, rng)])
    ours = session.run(["label"], {"x": tried})[0]
    wrong = np.flatnonzero(ours != model.decide(tried))
    if len(wrong):
        raise JobFailed(
            f"the ONNX graph decides otherwise than scikit-learn in {len(wrong)} of {len(tried)} rows, first for {tried[wrong[0]].tolist()}",
            hint="This is a mistake in the export; please report it with the versions in the manifest.",
        )
    return len(tried)


def _on_thresholds(model: Model, x: Any, rng: Any) -> Any:
    """Return some rows with one cell put onto, or one step above, a threshold of that feature."""
    import numpy as np

    if model.kind not in ("random_forest", "gradient_boosting"):
        return x[:0]
    trees = _forest(model.estimator) if model.kind == "random_forest" else _boosted(model.estimator, model.classes)
    features = np.concatenate([t["feature"][~t["leaf"]] for t in trees])
    thresholds = np.concatenate([t["threshold"][~t["leaf"]] for t in trees])
    finite = np.flatnonzero(np.isfinite(thresholds))
    if not len(finite):
        return x[:0]
    chosen = rng.choice(finite, min(4000, len(finite)), replace=False)
    rows = x[rng.integers(0, len(x), len(chosen))].copy()
    edge = thresholds[chosen].astype(np.float32)
    above = np.nextafter(edge, np.float32(np.inf))
    rows[np.arange(len(chosen)), features[chosen]] = np.where(rng.random(len(chosen)) < 0.5, edge, above)
    return rows
