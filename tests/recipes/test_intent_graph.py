"""Texts are counted inside the graph as in Python, whatever they hold; and on public data the recipe is as good as said."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evergreen.core.recipe import Job, Row
from evergreen.recipes.intent import Intent, IntentOptions, counting, graph, words
from evergreen.recipes.intent.described import Described, Linear

DATA = Path(os.environ.get("EVERGREEN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "intent" / "dev"
NAMES = tuple(
    sorted(
        [
            "a",
            "b",
            "ab",
            "a b",
            "b a",
            "it's",
            "o'a",
            "ß",
            "ss",
            "σ",
            "ς",
            "i",
            "é",
            "e",
            "日",
            "日本",
            "1",
            "½",
            "x",
            "# a",
            "#a ",
            "#ab",
            "#b ",
            "#'s",
            "#日本",
            "# é",
            "#aa",
            "# i",
            "#i ",
            "#1 ",
        ]
    )
)
#: Python lower-cases these by rules of their own; the graph knows one letter for one.
SPECIAL = "İΣ"
LETTERS = st.sampled_from("abABis'’ _-.,!\t\n\u00a0\u2003éÉßẞ日本1½²😀👍🏽\u0301#x")
TEXTS = st.one_of(st.text(LETTERS, max_size=40), st.text(max_size=30), st.text("ab '", max_size=20))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Described, Any]:
    """Make up a linear model; return it, and its graph opened."""
    rng = np.random.default_rng(0)
    levels = rng.integers(-127, 128, (len(NAMES), 4)).astype(np.int8)
    linear = Linear(levels, rng.uniform(0.01, 0.02, 4), rng.normal(0, 1, 4))
    described = Described(
        NAMES, rng.uniform(1, 2, len(NAMES)).astype(np.float32), ("p", "q", "r", "s"), linear, 0.7, limit=0.2
    )
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    graph.write(described, path)
    return described, ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def asked(opened: Any, texts: Sequence[str]) -> tuple[list[str], Any]:
    label, probabilities = opened.run(["label", "probabilities"], {"text": np.array(texts, dtype=object)[:, None]})
    return label.tolist(), probabilities


def expected(described: Described, texts: Sequence[str]) -> tuple[list[str], Any]:
    features = counting.features(counting.matrix(described.names, texts), described.idf)
    scores = np.hstack([described.model.scores(features), np.full((len(texts), 1), described.limit)])  # type: ignore[union-attr]
    powers = np.exp(scores / described.temperature)
    return [described.answers[i] for i in scores.argmax(axis=1)], powers / powers.sum(axis=1, keepdims=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
@example(["", "'", "''", "'a'", "a'", "'a", "it's", "IT'S it''s 'it's'"])
@example(["a_b", "a b  a", "\x00a\x00", "\ufeffa", "a" * 300])
@example(["İ i", "ΑΣ Σ ΣΑΣ", "ẞ ß SS"])
def test_words_are_counted_alike(model: tuple[Described, Any], texts: list[str]) -> None:
    described, opened = model
    labels, probabilities = expected(described, texts)
    ours = asked(opened, [words.plain(text) for text in texts])
    assert ours[0] == labels
    assert ours[1] == pytest.approx(probabilities, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
@example(["it's", "IT'S it''s 'it's'", " \t a_B ", "É É", "日本日"])
def test_raw_text_is_read_alike(model: tuple[Described, Any], texts: list[str]) -> None:
    described, opened = model
    texts = ["".join(c for c in text if c not in SPECIAL and assigned(c)) for text in texts]
    labels, probabilities = expected(described, texts)
    ours = asked(opened, texts)
    assert ours[0] == labels
    assert ours[1] == pytest.approx(probabilities, abs=1e-6)


def assigned(c: str) -> bool:
    return unicodedata.category(c) not in ("Cn", "Co", "Cs")


def test_every_character_is_read_alike(model: tuple[Described, Any]) -> None:
    """Each character between two letters: it separates them, belongs to them, or is one of them."""
    described, opened = model
    every = [chr(i) for i in range(0x110000) if assigned(chr(i)) and chr(i) not in SPECIAL]
    for begin in range(0, len(every), 20_000):
        texts = [f"a{c}b {c}" for c in every[begin : begin + 20_000]]
        assert asked(opened, texts)[0] == expected(described, texts)[0]


def read(name: str) -> dict[str, list[Row]]:
    """Read a public data set by its splits, or skip."""
    path = DATA / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    recipe, sides = Intent(IntentOptions()), defaultdict(list)
    for i, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        datum = recipe.sample({"input": row["text"], "label": row["intent"]})
        sides[row["split"]].append(Row(str(i), datum.input, datum.label))
    return sides


def trained(recipe: Intent, rows: Sequence[Row], folder: Path) -> Path:
    data, out = folder / "data", folder / "out"
    data.mkdir()
    out.mkdir()
    recipe.write(rows, data, "train")
    recipe.train(Job(data, out))
    return out


def test_snips_by_a_fifth_of_it(tmp_path: Path) -> None:
    sides = read("snips7")
    recipe = Intent(IntentOptions.model_validate({"coreml": False, "refuse": 0}))
    predictor = recipe.load(trained(recipe, sides["train"][::5], tmp_path))
    assert np.mean(recipe.score(predictor, sides["test"])["accuracy"]) >= 0.965


@pytest.mark.slow
def test_clinc(tmp_path: Path) -> None:
    sides = read("clinc150")
    recipe = Intent(IntentOptions.model_validate({"coreml": False}))
    out = trained(recipe, sides["train"], tmp_path)
    predictor: Any = recipe.load(out)
    probabilities = predictor.decide([row.input["text"] for row in sides["test"]])[1]
    best = [predictor.answers[i] for i in probabilities[:, :-1].argmax(axis=1)]
    known = [(row.label, said) for row, said in zip(sides["test"], best, strict=True) if row.label != "out_of_scope"]
    assert np.mean([label == said for label, said in known]) >= 0.927
    beyond = np.array([row.label == "out_of_scope" for row in sides["test"]])
    from sklearn.metrics import roc_auc_score

    assert roc_auc_score(beyond, probabilities[:, -1]) >= 0.951
    assert sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) < 4_000_000
