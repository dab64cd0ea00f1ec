"""What is learned: decisions the same as scikit-learn's, labels of their own type, choices, reports."""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evergreen.core.errors import Corrupt, InvalidInput, JobFailed
from evergreen.core.recipe import Row
from evergreen.recipes.tabular import Tabular, TabularOptions, choose, export, models, training
from evergreen.recipes.tabular.predictor import TabularPredictor, session
from evergreen.testing.recipe import Trained, split, train

DATA = Path(os.environ.get("EVERGREEN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "tabular" / "dev"


def tabular(**options: Any) -> Tabular:
    return Tabular(TabularOptions.model_validate({"target": "y", "trees": 20} | options))


def made_up(n: int, classes: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make up rows of whole and halved numbers: many fall on thresholds, many votes tie."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        a, b, c = rng.randrange(12) / 2, rng.randrange(12) / 2, rng.gauss(0, 1)
        rows.append({"a": a, "b": b, "c": c, "y": int(a + b * (c > 0) + rng.gauss(0, 1)) % classes})
    return rows


def file(name: str, n: int) -> list[dict[str, str]]:
    """Read the first rows of a development file, or skip."""
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there")
    with (DATA / name).open(newline="") as lines:
        return list(itertools.islice(csv.DictReader(lines), n))


def run(recipe: Tabular, rows: list[Any], folder: Path) -> tuple[Trained, TabularPredictor]:
    trained = train(recipe, split(recipe, rows), folder)
    loaded = recipe.load(trained.artifact)
    assert isinstance(loaded, TabularPredictor)
    return trained, loaded


def mean(recipe: Tabular, trained: Trained, predictor: TabularPredictor, metric: str = "accuracy") -> float:
    figures = recipe.score(predictor, trained.holdout)[metric]
    return sum(figures) / len(figures)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("kind", models.KINDS)
def test_decisions_on_the_holdout_are_those_of_scikit_learn(kind: str, classes: int, tmp_path: Path) -> None:
    recipe = tabular(model=kind)
    trained, predictor = run(recipe, made_up(600, classes), tmp_path)
    fitted = training.fit(recipe.options, trained.train, seed=7)
    x = np.array([fitted.layout.encode(row.input) for row in trained.holdout], dtype=np.float32)
    expected = [fitted.classes[place] for place in fitted.model.decide(x)]
    answers = predictor.predict([row.input for row in trained.holdout])
    assert [answer["label"] for answer in answers] == expected
    scaled = np.exp(fitted.model.scores(x) / fitted.temperature)
    likely = scaled / scaled.sum(axis=1, keepdims=True)
    np.testing.assert_allclose([list(answer["probabilities"].values()) for answer in answers], likely, atol=2e-5)


@pytest.mark.parametrize("kind", ["random_forest", "gradient_boosting"])
def test_ties_break_as_in_scikit_learn(kind: Any, tmp_path: Path) -> None:
    """Coarse numbers and few trees: thousands of inputs on which classes have exactly the same votes."""
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 3, (300, 4)).astype(np.float32), rng.integers(0, 4, 300)
    model = models.fit(kind, x, y, np.ones(300), trees=10)
    export.write(model, 4, 1.0, tmp_path / "model.onnx")
    every = np.array(list(itertools.product(range(-1, 4), repeat=4)), dtype=np.float32)
    ours = session((tmp_path / "model.onnx").read_bytes()).run(["label"], {"x": every})[0]
    assert (ours == model.decide(every)).all()


def test_a_graph_that_decides_otherwise_is_not_delivered(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    model = models.fit("random_forest", x, (x[:, 0] > 0).astype(int), np.ones(200), trees=5)
    other = models.fit("random_forest", x, (x[:, 1] > 0).astype(int), np.ones(200), trees=5)
    export.write(other, 3, 1.0, tmp_path / "model.onnx")
    with pytest.raises(JobFailed, match="decides otherwise"):
        export.prove(model, session((tmp_path / "model.onnx").read_bytes()), x, 0)


@pytest.mark.parametrize("classes", [(0, 1), (5, -3), ("low", "high"), ("1", "2"), (True, False), (0.5, 1.5)], ids=str)
def test_labels_come_back_as_their_type(classes: tuple[Any, Any], tmp_path: Path) -> None:
    rows = [{"x": i % 10, "y": classes[i % 10 > 4]} for i in range(100)]
    for given in (classes, None):
        recipe = tabular(classes=given)
        trained, predictor = run(recipe, rows, tmp_path / str(given))
        answers = predictor.predict([{"x": 0}, {"x": 9}])
        assert [answer["label"] for answer in answers] == list(classes)
        assert [type(answer["label"]) for answer in answers] == [type(c) for c in classes]
        for answer in answers:
            assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
            assert answer["confidence"] == max(answer["probabilities"].values())
        assert mean(recipe, trained, predictor) == 1.0


@pytest.mark.parametrize("kind", models.KINDS)
def test_categories_and_missing_cells(kind: str, tmp_path: Path) -> None:
    recipe = tabular(target="label", model=kind)
    trained, predictor = run(recipe, file("adult_20k.csv", 1500), tmp_path)
    columns = {column.name: column for column in predictor.layout.columns}
    assert columns["workclass"].kind == "category"
    assert columns["age"].kind == "number"
    assert "label" not in columns
    assert mean(recipe, trained, predictor) > 0.76  # the most frequent class is right in 76 %
    value = dict(trained.holdout[0].input)
    for cell in ("never seen before", None, "?"):
        assert predictor.predict([value | {"workclass": cell}])[0]["label"] in ("<=50K", ">50K")
    assert predictor.predict([{}])[0]["label"] in ("<=50K", ">50K")
    with pytest.raises(InvalidInput) as refused:
        predictor.predict([value | {"age": "old"}])
    assert refused.value.field == "age"


def test_a_missing_number_is_told_apart_from_the_median(tmp_path: Path) -> None:
    rows = [{"x": None if i % 3 == 0 else float(i % 7), "z": i % 2, "y": int(i % 3 == 0)} for i in range(300)]
    recipe = tabular(features=("x", "z"), model="logistic")
    trained, predictor = run(recipe, rows, tmp_path)
    assert mean(recipe, trained, predictor) == 1.0


def test_a_sequence_is_learned_from_at_its_places(tmp_path: Path) -> None:
    rng = random.Random(5)
    rows = []
    for _ in range(400):
        path = [{"v": rng.gauss(0, 1), "w": rng.gauss(0, 1)} for _ in range(rng.randrange(1, 4))]
        rows.append({"x": rng.random(), "path": path, "y": int(path[0]["w"] > 0)})
    recipe = tabular(features=("x",), sequence={"column": "path", "length": 3, "fields": ("v", "w")})
    trained, predictor = run(recipe, rows, tmp_path)
    assert predictor.layout.width == 7
    assert mean(recipe, trained, predictor) > 0.9


def test_poor_outcomes_teach_less(tmp_path: Path) -> None:
    """Half the log decides wrongly, and the frame rate fell each time: what held is what is learned."""
    rng = random.Random(2)
    rows = []
    for _ in range(800):
        x, wrong = rng.random(), rng.random() < 0.5
        rows.append({"x": x, "fps": 60.0, "after": 20.0 if wrong else 60.0, "y": int((x > 0.5) != wrong)})
    weighed = tabular(features=("x",), outcome={"column": "after", "before": "fps"}, model="logistic")
    trained, predictor = run(weighed, rows, tmp_path)
    assert all(row.input["after"] == 60.0 for row in trained.holdout)
    assert mean(weighed, trained, predictor) > 0.95
    found = trained.details["outcome"]
    assert found["lowered"] == found["bad"] == sum(row.weight < 1 for row in trained.train)
    weighed.report(trained.artifact, predictor, trained.holdout, tmp_path)
    assert f"{found['lowered']:,} count less" in (tmp_path / "report.md").read_text()


class TestChoices:
    @staticmethod
    def drifted(n: int = 1200) -> list[dict[str, Any]]:
        """Make up rows whose label turns round after two thirds."""
        rng = random.Random(4)
        rows = []
        for i in range(n):
            x = rng.random()
            rows.append({"x": x, "z": rng.random(), "y": int((x > 0.5) == (i < n * 2 // 3))})
        return rows

    def test_recency_follows_a_drift(self, tmp_path: Path) -> None:
        accuracy = {}
        for recency in ("none", "auto", 60):
            recipe = tabular(recency=recency, model="logistic")
            trained, predictor = run(recipe, self.drifted(), tmp_path / str(recency))
            accuracy[recency] = mean(recipe, trained, predictor)
        assert accuracy["none"] < 0.2
        assert min(accuracy["auto"], accuracy[60]) > 0.9

    def test_nothing_is_forgotten_without_a_drift(self) -> None:
        recipe = tabular(recency="auto", model="logistic")
        rows, _ = split(recipe, made_up(600, 2))
        assert training.fit(recipe.options, rows).details["weights"]["half_life"] is None

    def test_auto_finds_the_kind_that_fits(self, tmp_path: Path) -> None:
        rng = random.Random(6)
        rows = [{"a": rng.gauss(0, 1), "b": rng.gauss(0, 1)} for _ in range(500)]
        circle = [row | {"y": int(row["a"] ** 2 + row["b"] ** 2 < 1.4)} for row in rows]
        trained, _ = run(tabular(model="auto"), circle, tmp_path)
        tried = {t["model"]: t["accuracy"] for t in trained.details["cv"]["tried"]}
        assert set(tried) == set(models.KINDS)
        assert trained.details["model"] != "logistic"
        assert trained.details["cv"]["folds"] == "growing window over time"

    def test_rows_without_times_are_shuffled(self) -> None:
        options = tabular(model="auto").options
        rows = [Row(str(i), {"x": i % 10}, int(i % 10 > 4)) for i in range(200)]
        assert training.fit(options, rows).details["cv"]["folds"] == "stratified"

    def test_rows_sorted_by_class_are_shuffled(self) -> None:
        rows = [Row(str(i), {"x": i % 10 + i // 100}, i // 100, time=float(i)) for i in range(300)]
        fitted = training.fit(tabular().options, rows)
        assert fitted.details["cv"]["folds"] == "stratified"

    def test_the_temperature_is_the_one_the_scores_were_made_with(self) -> None:
        rng = np.random.default_rng(0)
        scores = rng.normal(0, 2, (20_000, 3))
        chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        y = (chances.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
        assert choose.temperature(scores * 4, y, np.ones(len(y))) == pytest.approx(4.0, rel=0.05)

    def test_weights_halve_with_age_and_balance_classes(self) -> None:
        y, given = np.array([0, 0, 0, 1]), np.ones(4)
        aged = choose.weights(y, given, 1.0, "none")
        np.testing.assert_allclose(aged / aged[-1], [0.125, 0.25, 0.5, 1.0])
        even = choose.weights(y, given, None, "balanced")
        assert even[:3].sum() == pytest.approx(even[3])

    def test_support_vectors_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(models, "SVM_ROWS", 100)
        rows, _ = split(tabular(), made_up(500, 3))
        fitted = training.fit(tabular(model="svm").options, rows)
        assert fitted.model.rows <= 106
        assert "taken evenly" in fitted.details["note"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "0 rows"),
        ([{"x": 1, "y": 0}] * 20, "two are needed"),
        ([{"x": 1, "y": 0}] * 20 + [{"x": 1, "y": 1}], "two are needed"),
        ([{"x": None, "y": i % 2} for i in range(20)], "no column can be learned from"),
    ],
)
def test_nothing_to_learn_is_said(rows: list[Mapping[str, Any]], said: str) -> None:
    recipe = tabular()
    with pytest.raises(JobFailed, match=said) as failed:
        training.fit(recipe.options, [Row(str(i), recipe.sample(r).input, r["y"]) for i, r in enumerate(rows)])
    assert failed.value.kind == "configuration"


@pytest.mark.parametrize("kind", models.KINDS)
def test_four_rows_are_enough_to_train(kind: str, tmp_path: Path) -> None:
    rows = [{"x": float(i), "z": 1, "y": i % 2} for i in range(4)]
    trained = train(tabular(model=kind), (split(tabular(), rows)[0], []), tmp_path)
    assert trained.details["n_train"] == 4


def test_a_class_with_one_row_is_left_out(tmp_path: Path) -> None:
    rows = [{"x": i % 10, "y": int(i % 10 > 4)} for i in range(100)] + [{"x": 50, "y": 7}]
    recipe = tabular()
    trained = train(recipe, (split(recipe, rows)[0] + split(recipe, rows)[1], []), tmp_path)
    assert trained.details["left_out"] == {"7": 1}
    assert set(trained.details["classes"]) == {"0", "1"}


def test_a_label_never_taught_counts_as_wrong(tmp_path: Path) -> None:
    recipe = tabular()
    trained, predictor = run(recipe, made_up(200, 2), tmp_path)
    strange = [Row("1", {"a": 1, "b": 1, "c": 1}, 9)]
    assert list(recipe.score(predictor, strange)["accuracy"]) == [0.0]
    recipe.report(trained.artifact, predictor, [*trained.holdout, *strange], tmp_path)
    found = json.loads((tmp_path / "report.json").read_bytes())
    assert found["per_class"]["9"] == {"n": 1, "precision": None, "recall": 0.0, "f1": 0.0}


def test_the_report_has_every_figure(tmp_path: Path) -> None:
    recipe = tabular(model="svm", class_weight="balanced")
    rows = [row | {"y": ("a|b", "<script>", "$x$")[row["y"]]} for row in made_up(300, 3)]
    trained, predictor = run(recipe, rows, tmp_path)
    recipe.report(trained.artifact, predictor, trained.holdout, tmp_path)
    found = json.loads((tmp_path / "report.json").read_bytes())
    right = sum(found["confusion"]["matrix"][i][i] for i in range(3))
    assert right / len(trained.holdout) == pytest.approx(mean(recipe, trained, predictor))
    assert sum(c["n"] for c in found["per_class"].values()) == len(trained.holdout)
    assert set(found["importance"]) == {"a", "b", "c"}
    for name in ("confusion.png", "importance.png", "calibration.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "a\\|b" in text


def test_without_held_out_rows_the_report_says_so(tmp_path: Path) -> None:
    recipe = tabular()
    trained, predictor = run(recipe, made_up(100, 2), tmp_path)
    recipe.report(trained.artifact, predictor, [], tmp_path)
    assert "no held-out rows" in (tmp_path / "report.md").read_text()


def test_another_recipes_artifact_is_refused(tmp_path: Path) -> None:
    recipe = tabular()
    trained, _ = run(recipe, made_up(100, 2), tmp_path)
    manifest = trained.artifact / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"tabular"', '"intent"'))
    with pytest.raises(Corrupt, match="no artifact of the tabular recipe"):
        recipe.load(trained.artifact)


def test_numbers_of_hundreds_of_digits_are_refused(tmp_path: Path) -> None:
    _, predictor = run(tabular(), made_up(100, 2), tmp_path)
    with pytest.raises(InvalidInput):
        predictor.predict([{"a": 10**400, "b": 1, "c": 1}])
