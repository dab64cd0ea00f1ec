"""The intent recipe keeps the promises of every recipe, and its own about texts, labels and what is out of scope."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from evergreen.core.errors import InvalidInput, JobFailed, TooLarge
from evergreen.core.recipe import Job, Recipe, Row
from evergreen.recipes.intent import Intent, IntentOptions
from evergreen.testing.recipe import RecipeContract, Trained, split, train

PHRASES = {
    "light_on": [
        "turn the {} light on",
        "lights on in the {}",
        "make the {} brighter please",
        "can you switch on the {} lamp",
    ],
    "light_off": ["turn the {} light off", "no light in the {}", "make the {} dark", "kill the {} lamp"],
    "play": ["play some {}", "I want to hear {}", "put on {} music", "start my {} playlist"],
    "weather": [
        "will it rain in {}",
        "what's the weather in {}",
        "how warm is it in {} today",
        "do I need an umbrella in {}",
    ],
    "timer": ["set a timer for {} minutes", "wake me in {} minutes", "count down from {}", "remind me in {} hours"],
}
WORDS = {
    "light_on": ["kitchen", "bedroom", "hall", "bath", "garden"],
    "light_off": ["kitchen", "bedroom", "hall", "bath", "garden"],
    "play": ["jazz", "rock", "techno", "Bach", "folk", "soul"],
    "weather": ["Köln", "Paris", "Oslo", "Graz", "東京", "Łódź"],
    "timer": ["two", "five", "ten", "20", "three", "90"],
}
ELSEWHERE = [
    "who won the cup in 1990",
    "sing me your taxes",
    "is a tomato a fruit",
    "buy shares of anything",
    "my dog ate it",
]


def log(n: int, seed: int = 1, outside: float = 0) -> list[dict[str, Any]]:
    """Make up what users said and what was meant."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for _ in range(n):
        label = rng.choice(list(PHRASES))
        text = rng.choice(PHRASES[label]).format(rng.choice(WORDS[label]))
        weight = rng.choice((1.0, 1.0, 2.0, 3.0))
        rows.append(
            {"input": {"text": f"{text}{rng.choice(('', '', ' now', '!', ' 🙂'))}"}, "label": label, "weight": weight}
        )
        if rng.random() < outside:
            extra = f"{rng.choice(ELSEWHERE)} {rng.choice(('', 'really', 'and why', 'ok'))}".strip()
            rows.append({"input": extra, "label": "oos"})
    return rows


def intent(**options: Any) -> Intent:
    return Intent(IntentOptions.model_validate({"trees": 20, "coreml": False} | options))


class TestContract(RecipeContract):
    def decision(self, answer: Any) -> Any:
        return answer["intent"]

    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls) -> Recipe:
        return intent()

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls) -> list[dict[str, Any]]:
        return log(220, outside=0.15)

    @pytest.fixture(scope="class")
    @classmethod
    def bad_rows(cls) -> list[tuple[dict[str, Any], str]]:
        return [
            ({"label": "play"}, "input"),
            ({"input": 3, "label": "play"}, "input"),
            ({"input": {}, "label": "play"}, "text"),
            ({"input": {"text": 3}, "label": "play"}, "text"),
            ({"input": "", "label": "play"}, "text"),
            ({"input": " \n ", "label": "play"}, "text"),
            ({"input": "a" * 2001, "label": "play"}, "text"),
            ({"input": "half \ud83d", "label": "play"}, "text"),
            ({"input": "a", "label": 3}, "label"),
            ({"input": "a", "label": " "}, "label"),
            ({"input": "a", "label": "play", "weight": -1}, "weight"),
            ({"input": "a", "label": "play", "weight": float("nan")}, "weight"),
            ({"input": "a", "label": "play", "weight": True}, "weight"),
        ]

    def test_it_learns(self, recipe: Recipe, predictor: Any, trained: Trained) -> None:
        means = {name: float(np.mean(figures)) for name, figures in recipe.score(predictor, trained.holdout).items()}
        assert means["accuracy"] > 0.85
        assert means["log_likelihood"] > -0.8

    def test_out_of_scope_is_an_answer_and_no_class(self, predictor: Any, trained: Trained) -> None:
        assert sorted(trained.details["classes"]) == sorted(PHRASES)
        assert "labelled out of scope" in trained.details["limit_why"]
        (said,) = predictor.predict([{"text": "colourless ideas sleep furiously"}])
        assert said["intent"] == "out_of_scope"
        assert said["in_scope"] is False
        assert len(said["probabilities"]) == 5
        assert sum(said["probabilities"].values()) <= 1.0001
        assert said["confidence"] == max(said["probabilities"].values())

    def test_the_graph_answers_raw_text_alike(self, predictor: Any, trained: Trained) -> None:
        import onnxruntime as ort

        graph = ort.InferenceSession(str(trained.artifact / "model.onnx"), providers=["CPUExecutionProvider"])
        texts = [row.input["text"] for row in trained.holdout]
        texts += [text.upper() for text in texts] + ["", "'", "''don't''  'x", "_", "ΑΒΓ δ", "ﬁ", "日本", "\t\n", "ǅ ẞ"]
        label, probabilities = graph.run(["label", "probabilities"], {"text": np.array(texts, dtype=object)[:, None]})
        said = predictor.predict([{"text": text} for text in texts])
        assert label.tolist() == [answer["intent"] for answer in said]
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)

    def test_a_phone_finds_the_vocabulary(self, trained: Trained) -> None:
        found = msgspec.json.decode((trained.artifact / "features.json").read_bytes())
        assert len(found["names"]) == len(found["idf"]) == trained.details["vocabulary"]
        assert found["lower"] is True
        assert "light" in found["names"]
        assert "turn the" in found["names"]
        assert any(name.startswith("#") for name in found["names"])

    def test_the_report_tells_of_intents_and_scope(
        self, recipe: Recipe, predictor: Any, trained: Trained, tmp_path: Path
    ) -> None:
        recipe.report(trained.artifact, predictor, trained.holdout, tmp_path)
        text = (tmp_path / "report.md").read_text(encoding="utf-8")
        for part in ("## Intents", "light_on", "## Out of scope", "## How the model was made"):
            assert part in text
        figures = msgspec.json.decode((tmp_path / "report.json").read_bytes())
        assert figures["rows"] == len(trained.holdout)
        assert {"intents.png", "scope.png"} <= {path.name for path in tmp_path.iterdir()}
        recipe.report(trained.artifact, predictor, [], tmp_path)
        assert "no held-out rows" in (tmp_path / "report.md").read_text(encoding="utf-8")


class TestForest(RecipeContract):
    def decision(self, answer: Any) -> Any:
        return answer["intent"]

    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls) -> Recipe:
        return intent(model="random_forest", refuse=0.05)

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls) -> list[dict[str, Any]]:
        return log(150)

    @pytest.fixture(scope="class")
    @classmethod
    def bad_rows(cls) -> list[tuple[dict[str, Any], str]]:
        return [({"input": None}, "input")]

    def test_it_counts_words_and_pairs_only(self, trained: Trained) -> None:
        names = msgspec.json.decode((trained.artifact / "features.json").read_bytes())["names"]
        assert not [name for name in names if name.startswith("#")]
        assert max(name.count(" ") for name in names) == 1
        assert trained.details["limit_why"].endswith("5.0% of the rows kept back would be refused")


def trained(recipe: Intent, rows: Sequence[dict[str, Any]], folder: Path) -> Trained:
    return train(recipe, split(recipe, rows), folder)


@pytest.mark.parametrize("model", ["linear", "random_forest"])
def test_two_intents_are_enough(model: str, tmp_path: Path) -> None:
    rows = [row for row in log(300) if row["label"] in ("play", "timer")]
    recipe = intent(model=model)
    left = trained(recipe, rows, tmp_path)
    predictor = recipe.load(left.artifact)
    assert np.mean(recipe.score(predictor, left.holdout)["accuracy"]) > 0.85


def test_nothing_is_out_of_scope_if_nobody_wants_that(tmp_path: Path) -> None:
    recipe = intent(model="linear", refuse=0)
    left = trained(recipe, log(120), tmp_path)
    (said,) = recipe.load(left.artifact).predict([{"text": "colourless ideas sleep furiously"}])
    assert said["in_scope"] is True
    assert sorted(said["probabilities"]) == sorted(PHRASES)


def test_too_few_samples_are_told_with_both_figures(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="there are 24 labelled samples to learn from; 50 are needed"):
        trained(intent(), log(30), tmp_path)


def test_one_intent_is_not_enough(tmp_path: Path) -> None:
    rows = [{"input": f"text number {i}", "label": "play"} for i in range(80)]
    with pytest.raises(JobFailed, match="two are needed"):
        trained(intent(), rows, tmp_path)


def test_an_intent_with_a_single_text_is_left_out_and_told(tmp_path: Path) -> None:
    rows = [{"input": "open the window", "label": "window"}, *log(100)]
    left = trained(intent(model="linear"), rows, tmp_path)
    assert left.details["left_out"] == {"window": 1}
    assert "window" not in left.details["classes"]


def test_an_intent_of_the_same_text_said_often_can_be_learned(tmp_path: Path) -> None:
    """All its rows are in one fold: the models of the others have never heard of it."""
    rows = log(100)
    rows[10:10] = [{"input": "open the window", "label": "window"}] * 6
    recipe = intent()
    left = trained(recipe, rows, tmp_path)
    (said,) = recipe.load(left.artifact).predict([{"text": "Open the window!"}])
    assert said["intent"] == "window"


def test_rows_of_weight_zero_teach_nothing(tmp_path: Path) -> None:
    rows = [*log(100), *({"input": f"open window {i}", "label": "window", "weight": 0} for i in range(20)), *log(30)]
    assert "window" not in trained(intent(model="linear"), rows, tmp_path).details["classes"]


def test_heavy_rows_decide(tmp_path: Path) -> None:
    """The same text with two labels: the heavier one wins."""
    rows = [*log(100), *([{"input": "do it", "label": "play"}, {"input": "do it", "label": "timer", "weight": 3}] * 8)]
    recipe = intent(model="linear")
    left = trained(recipe, [*rows, *log(40)], tmp_path)
    (said,) = recipe.load(left.artifact).predict([{"text": "do it"}])
    assert said["probabilities"]["timer"] > said["probabilities"]["play"]


def test_texts_without_any_word_are_answered(tmp_path: Path) -> None:
    rows = log(90)
    for row in rows[::6]:
        row["input"] = "🙂🙂"
    recipe = intent(model="linear")
    left = trained(recipe, rows, tmp_path)
    answers = recipe.load(left.artifact).predict([{"text": "🎉"}, {"text": "play jazz"}])
    assert [isinstance(a["intent"], str) for a in answers] == [True, True]


@pytest.mark.parametrize(
    "phrases",
    [
        {"播放": ["播放{}音乐", "我想听{}"], "天气": ["{}天气怎么样", "{}会下雨吗"]},
        {"музыка": ["включи {} музыку", "хочу слушать {}"], "погода": ["какая погода в {}", "будет ли дождь в {}"]},
        {"موسيقى": ["شغل موسيقى {}", "أريد سماع {}"], "طقس": ["كيف الطقس في {}", "هل ستمطر في {}"]},
    ],
)
def test_other_scripts(phrases: dict[str, list[str]], tmp_path: Path) -> None:
    rng = random.Random(0)
    fill = ["一", "二", "три", "Δύο", "٤", "five", "ス", "ÄÖ"]
    rows = [
        {"input": f"{rng.choice(phrases[label]).format(rng.choice(fill))} {i % 7}", "label": label}
        for i in range(100)
        for label in [rng.choice(list(phrases))]
    ]
    recipe = intent(model="linear")
    left = trained(recipe, rows, tmp_path)
    assert np.mean(recipe.score(recipe.load(left.artifact), left.holdout)["accuracy"]) > 0.8


def test_rows_of_one_group_are_not_torn_apart() -> None:
    from evergreen.recipes.intent import choose

    keys = [f"#{i % 17}" for i in range(300)]
    place = choose.folds(np.arange(300) % 4, keys, 3, seed=1)
    assert all(len({int(place[i]) for i in range(300) if keys[i] == key}) == 1 for key in keys)
    assert min(np.bincount(place)) >= 80


def test_inputs_come_in_both_forms() -> None:
    recipe = intent()
    assert recipe.check("hello") == recipe.check({"text": "hello"}) == {"text": "hello"}
    assert recipe.sample({"text": "hello", "intent": "greet"}).label == "greet"
    assert recipe.sample({"input": "what", "label": "oos"}).label == "out_of_scope"
    with pytest.raises(TooLarge):
        recipe.check("x" * 2001)
    with pytest.raises(InvalidInput):
        recipe.check(["hello"])


def test_a_row_out_of_scope_is_right_if_refused() -> None:
    class Refuses:
        def predict(self, inputs: Sequence[Any]) -> list[Any]:
            return [{"intent": "out_of_scope", "probabilities": {"out_of_scope": 0.9}} for _ in inputs]

        def close(self) -> None: ...

    rows = [Row("a", {"text": "x"}, "out_of_scope"), Row("b", {"text": "y"}, "play")]
    scores = intent().score(Refuses(), rows)
    assert scores["accuracy"] == [1.0, 0.0]
    assert scores["log_likelihood"] == pytest.approx([np.log(0.9), np.log(1e-4)])


def test_training_tells_of_every_part(tmp_path: Path) -> None:
    recipe = intent(model="linear")
    left = trained(recipe, log(100), tmp_path)
    phases = [step[0] for step in left.steps]
    assert list(dict.fromkeys(phases)) == ["count", "cross-validate", "fit", "export"]
    assert Job(tmp_path, tmp_path).uploads == {}


def test_texts_are_described_by_length_script_and_words() -> None:
    recipe = Intent(IntentOptions())
    said = recipe.describe({"text": "Turn it on, ОК?"})
    assert said == {
        "characters": 15.0,
        "words": 4.0,
        "other scripts": 2 / 10,
        "unknown words": ["turn", "it", "on", "ок"],
    }
    assert recipe.describe({"text": "?"})["other scripts"] == 0.0
    assert recipe.describe(None) == {}
    answer = {"intent": "light_on", "confidence": 0.7, "in_scope": True, "probabilities": {}}
    assert recipe.describe_output(answer) == {"intent": "light_on", "confidence": 0.7}
