"""CoremlFormat reads what coremltools writes, says what it cannot read, and is found by its name."""

from __future__ import annotations

import io
import logging
import math
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coreml_checks import read, same
from coreml_protos import Model, classifier

from evergreen.backends.format.coreml import CoremlFormat
from evergreen.core.config import Use
from evergreen.core.errors import InvalidInput, TooLarge
from evergreen.core.plugins import make


@pytest.fixture(scope="module")
def coremltools() -> Any:
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield pytest.importorskip("coremltools")
    logging.disable(logging.NOTSET)


def test_trees_built_by_coremltools(coremltools: Any) -> None:
    from coremltools.models import datatypes
    from coremltools.models.tree_ensemble import TreeEnsembleClassifier
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    forest = RandomForestClassifier(10, random_state=1).fit(x, (x[:, 0] > 0) + 2 * (x[:, 1] > 0.5))
    built = TreeEnsembleClassifier(
        [(name, datatypes.Double()) for name in "abc"], [0, 1, 2, 3], output_features="light"
    )
    built.set_default_prediction_value([0.0] * 4)
    for number, tree in enumerate(t.tree_ for t in forest.estimators_):
        for i in range(tree.node_count):
            if tree.children_left[i] < 0:
                given = {j: float(p) / 10 for j, p in enumerate(tree.value[i, 0])}
                built.add_leaf_node(number, i, given)
            else:
                children = int(tree.children_left[i]), int(tree.children_right[i])
                threshold = float(tree.threshold[i])
                built.add_branch_node(
                    number, i, int(tree.feature[i]), threshold, "BranchOnValueLessThanEqual", *children
                )
    interface, run = read(built.spec)
    assert interface.labels == ("0", "1", "2", "3")
    more = rng.normal(size=(500, 3)).astype(np.float32)
    np.testing.assert_allclose(run(more), forest.predict_proba(more), atol=1e-6)
    same(built.spec, more[:10])


def test_a_network_built_by_coremltools(coremltools: Any) -> None:
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder, quantization_utils

    rng = np.random.default_rng(2)
    built = NeuralNetworkBuilder([("x", datatypes.Array(5))], [("p", None)], mode="classifier")
    built.add_inner_product("one", rng.normal(size=(8, 5)), rng.normal(size=8), 5, 8, True, "x", "a")
    built.add_activation("two", "RELU", "a", "b")
    built.add_batchnorm("norm", 8, *rng.uniform(0.5, 2, (4, 8)), input_name="b", output_name="c")
    built.add_inner_product("three", rng.normal(size=(3, 8)), None, 8, 3, False, "c", "d")
    built.add_softmax("four", "d", "p")
    built.set_class_labels(["off", "on", "play"], predicted_feature_name="intent", prediction_blob="p")
    rows = rng.normal(size=(20, 5))
    same(built.spec, rows)
    for bits, mode in (
        (16, "LINEAR_QUANTIZATION"),
        (8, "LINEAR_QUANTIZATION"),
        (5, "LINEAR_QUANTIZATION"),
        (4, "LOOKUP_TABLE_LINEAR"),
        (8, "LOOKUP_TABLE_LINEAR"),
        (1, "LINEAR_QUANTIZATION"),
    ):
        smaller = Model.FromString(built.spec.SerializeToString())
        quantization_utils._quantize_nn_spec(
            smaller.neuralNetworkClassifier, bits, getattr(coremltools.models, f"_QUANTIZATION_MODE_{mode}")
        )
        same(smaller, rows)


def test_support_vectors_of_scikit_learn_written_by_coremltools(coremltools: Any) -> None:
    from coremltools.models import datatypes
    from coremltools.models._interface_management import set_classifier_interface_params
    from sklearn.svm import SVC

    rng = np.random.default_rng(3)
    x = rng.normal(size=(80, 3))
    svc = SVC(gamma=0.5).fit(x, (x[:, 0] > 0) + 2 * (x[:, 1] > 0.3))
    spec = Model(specificationVersion=1)
    svm = spec.supportVectorClassifier
    svm.kernel.rbfKernel.gamma = svc._gamma
    svm.rho.extend((-svc.intercept_).tolist())
    for row in svc._dual_coef_:
        svm.coefficients.add().alpha.extend(row.tolist())
    for vector in svc.support_vectors_:
        svm.denseSupportVectors.vectors.add().values.extend(vector.tolist())
    svm.numberOfSupportVectorsPerClass.extend(svc.n_support_.tolist())
    features = [("x", datatypes.Array(3))]
    set_classifier_interface_params(spec, features, [0, 1, 2, 3], "supportVectorClassifier", output_features="y")
    _, run = read(spec)
    more = rng.normal(size=(300, 3)).astype(np.float32)
    svc.decision_function_shape, svc.break_ties = "ovo", False
    assert (run(more).argmax(axis=1) == svc.predict(more)).all()


# Doors


def test_it_is_found_by_name_and_takes_no_settings() -> None:
    found = make("formats", Use(use="coreml"))
    assert isinstance(found, CoremlFormat)
    assert found.suffixes == (".mlmodel",)


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "big.mlmodel").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(TooLarge):
        CoremlFormat().read(tmp_path / "big.mlmodel", tmp_path)


def test_probabilities_that_a_network_leaves_open_are_made_of_scores_and_noted() -> None:
    spec = classifier({"x": (2,)})
    layer = spec.neuralNetworkClassifier.layers.add(input=["x"], output=["y"])
    layer.activation.linear.alpha = 3.0
    spec.neuralNetworkClassifier.stringClassLabels.vector.extend(["a", "b"])
    interface, run = read(spec)
    assert "softmax" in interface.about["notes"]
    np.testing.assert_allclose(run([[1.0, 0.0]])[0, 0], 1 / (1 + math.exp(-3)), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("mlProgram", "mlProgram, is not supported"),
        ("textClassifier", "textClassifier, is not supported"),
        ("glmRegressor", "glmRegressor, is not supported"),
        ("bayesianProbitRegressor", "not supported"),
        ("serializedModel", "not supported"),
    ],
)
def test_what_is_not_supported_is_named_with_what_to_do(kind: str, says: str, tmp_path: Path) -> None:
    spec = classifier({"x": (2,)})
    getattr(spec, kind).SetInParent()
    with pytest.raises(InvalidInput, match=says) as refused:
        read(spec)
    assert refused.value.hint
    assert refused.value.field == "model"


def test_no_coremltools_is_needed_and_little_memory(tmp_path: Path) -> None:
    spec = classifier({"x": (2,)})
    spec.glmClassifier.weights.add().value.extend([1.0, 2.0])
    spec.glmClassifier.offset.append(0.5)
    spec.glmClassifier.stringClassLabels.vector.extend(["a", "b"])
    (tmp_path / "m.mlmodel").write_bytes(spec.SerializeToString())
    program = (
        "import sys; from pathlib import Path; from evergreen.backends.format.coreml import CoremlFormat\n"
        "assert 'numpy' not in sys.modules\n"
        f"CoremlFormat().read(Path({str(tmp_path / 'm.mlmodel')!r}), Path({str(tmp_path)!r}))\n"
        "assert 'coremltools' not in sys.modules\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 80 * 1024
