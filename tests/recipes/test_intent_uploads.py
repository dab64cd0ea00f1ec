"""Models from devices: which are adopted, which vote, and that the rest do no harm."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evergreen.core.errors import EvergreenError, InvalidInput, PredictionFailed
from evergreen.core.recipe import Interface, Job, Row
from evergreen.job import exports
from evergreen.recipes.intent import Intent, IntentOptions, words

LABELS = ("alarm", "call", "map", "music", "news", "weather")
#: What is said about each; a base that has seen few texts knows few of these words.
TOPICS = {
    label: [f"{label[:2]}{syllable}{ending}" for syllable in ("ro", "ti", "ka", "mu", "se") for ending in ("na", "lo")]
    for label in LABELS
}
FILLERS = ["please", "now", "the", "a", "for", "me", "can", "you", "today", "again"]


def rows(n: int, seed: int, wrong: float = 0.0) -> list[Row]:
    """Make up texts of four words, one of them telling; some labels are wrong."""
    rng = Random(seed)
    made = []
    for i in range(n):
        label = rng.choice(LABELS)
        said = [rng.choice(FILLERS) for _ in range(3)]
        said.insert(rng.randrange(4), rng.choice(TOPICS[label]))
        noted = rng.choice(LABELS) if rng.random() < wrong else label
        made.append(Row(f"{seed}-{i}", {"text": " ".join(said)}, noted))
    return made


def counts_model(folder: Path, weight: Callable[[str, str], float], labels: Sequence[str] = LABELS) -> Path:
    """Write an upload that counts words and weighs them; softmax of the sums."""
    names = [word for label in LABELS for word in TOPICS[label]] + FILLERS
    weights = np.array([[weight(name, label) for label in labels] for name in names], dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["input", "w"], ["sums"]),
        helper.make_node("Softmax", ["sums"], ["probabilities"], axis=1),
    ]
    interface = Interface("counts", "input", labels, names=names)
    return upload(
        folder, interface, nodes, TensorProto.FLOAT, [None, len(names)], [numpy_helper.from_array(weights, "w")]
    )


def upload(
    folder: Path, interface: Interface, nodes: Sequence[Any], kind: int, shape: Sequence[Any], held: Sequence[Any] = ()
) -> Path:
    """Lay down what the check of an upload leaves."""
    graph = helper.make_graph(
        nodes,
        "upload",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None)],
        list(held),
    )
    folder.mkdir(parents=True)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "model.onnx")
    (folder / "interface.json").write_bytes(msgspec.json.encode(interface))
    return folder


def knows(name: str, label: str) -> float:
    return 4.0 if name in TOPICS.get(label, ()) else 0.0


def misleads(name: str, label: str) -> float:
    return 9.0 if name in TOPICS[LABELS[LABELS.index(label) - 1]] else 0.0


def guesses(folder: Path, seed: int) -> Path:
    rng = Random(seed)
    return counts_model(folder, lambda name, label: rng.gauss(0, 3))


def train(
    folder: Path, uploads: Mapping[str, Path], n: int = 180, **options: Any
) -> tuple[Intent, Path, Mapping[str, Any]]:
    """Train on few texts, a fifth of them labelled wrongly."""
    recipe = Intent(IntentOptions.model_validate({"model": "linear", "coreml": False, "refuse": 0} | options))
    data, out = folder / "data", folder / "out"
    data.mkdir(parents=True)
    out.mkdir()
    recipe.write(rows(n, seed=1, wrong=0.2), data, "train")
    return recipe, out, recipe.train(Job(data, out, uploads=uploads))


def accuracy(recipe: Intent, predictor: Any) -> float:
    return float(np.mean(recipe.score(predictor, rows(400, seed=99))["accuracy"]))


def test_the_good_one_votes_the_random_and_the_adversarial_do_not(tmp_path: Path) -> None:
    uploads = {
        "good": counts_model(tmp_path / "good", knows),
        "adversarial": counts_model(tmp_path / "adversarial", misleads),
        **{f"random{i}": guesses(tmp_path / f"random{i}", i) for i in range(3)},
    }
    recipe, out, details = train(tmp_path / "with", uploads)
    told = details["uploads"]
    assert told["good"]["weight"] > 0.05
    assert told["good"]["why"].startswith("It helps: with it the validation accuracy is")
    for name in ("adversarial", "random0", "random1", "random2"):
        assert told[name]["weight"] == 0.0
        assert told[name]["why"].startswith("It did not help: with it the validation accuracy would be ")
    _, alone, _ = train(tmp_path / "without", {})
    assert accuracy(recipe, recipe.load(out)) > accuracy(recipe, recipe.load(alone)) + 0.03
    assert sorted(path.name for path in (out / "members").iterdir()) == ["good"]


def test_only_poor_ones_change_nothing(tmp_path: Path) -> None:
    uploads = {f"random{i}": guesses(tmp_path / f"random{i}", i) for i in range(6)}
    recipe, out, details = train(tmp_path / "with", uploads)
    assert {told["weight"] for told in details["uploads"].values()} == {0.0}
    assert not (out / "members").exists()
    _, alone, _ = train(tmp_path / "without", {})
    texts = [row.input for row in rows(100, seed=5)]
    assert recipe.load(out).predict(texts) == recipe.load(alone).predict(texts)


def test_soft_vote_gives_the_base_two_votes_and_each_other_one(tmp_path: Path) -> None:
    uploads = {"good": counts_model(tmp_path / "good", knows), "poor": guesses(tmp_path / "poor", 1)}
    recipe, out, details = train(tmp_path / "job", uploads, ensemble="soft_vote")
    assert {key: told["weight"] for key, told in details["uploads"].items()} == {"good": 1.0, "poor": 1.0}
    assert details["base_weight"] == 2.0
    assert len(recipe.load(out).predict([{"text": "rona"}])) == 1


def test_none_lets_nobody_vote(tmp_path: Path) -> None:
    _, out, details = train(tmp_path / "job", {"good": counts_model(tmp_path / "good", knows)}, ensemble="none")
    assert details["uploads"]["good"]["weight"] == 0.0
    assert "ensemble = none" in details["uploads"]["good"]["why"]
    assert not (out / "members").exists()


def test_labels_that_only_one_side_knows(tmp_path: Path) -> None:
    """The upload knows four of our six intents, and one of its own."""
    known = (*LABELS[:4], "submarine")
    uploads = {"partial": counts_model(tmp_path / "partial", knows, known)}
    recipe, out, details = train(tmp_path / "job", uploads, ensemble="soft_vote")
    assert details["uploads"]["partial"]["weight"] == 1.0
    answers = recipe.load(out).predict([row.input for row in rows(200, seed=7)])
    assert "submarine" not in {answer["intent"] for answer in answers}
    assert {"news", "weather"} <= {answer["intent"] for answer in answers}
    assert all(sum(answer["probabilities"].values()) <= 1.0001 for answer in answers)


def test_one_that_knows_none_of_our_intents_is_left_out(tmp_path: Path) -> None:
    foreign = counts_model(tmp_path / "foreign", lambda name, label: 1.0, ("submarine", "zeppelin"))
    _, _, details = train(tmp_path / "job", {"foreign": foreign})
    assert details["uploads"]["foreign"] == {
        "weight": 0.0,
        "why": "It could not be tried: it knows none of the intents of this loop.",
    }


def broken(folder: Path) -> Path:
    """Divides whole numbers by zero rows: fails whenever it runs."""
    nodes = [helper.make_node("Reshape", ["input", "shape"], ["probabilities"])]
    held = [numpy_helper.from_array(np.array([7, 13], dtype=np.int64), "shape")]
    return upload(
        folder, Interface("counts", "input", LABELS, names=["a", "b"]), nodes, TensorProto.FLOAT, [None, 2], held
    )


def nonsense(folder: Path) -> Path:
    """Answers with NaN."""
    return counts_model(folder, lambda name, label: float("nan"))


def slow(folder: Path) -> Path:
    """Multiplies large matrices for every answer."""
    held = [
        numpy_helper.from_array(np.zeros((2, len(LABELS)), dtype=np.float32), "w"),
        numpy_helper.from_array(np.array([1500, 1500], dtype=np.int64), "size"),
        numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("ReduceSum", ["input"], ["some"], keepdims=0),
        helper.make_node("Mul", ["some", "zero"], ["nothing"]),
        helper.make_node("Expand", ["nothing", "size"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(4)),
        helper.make_node("ReduceMax", ["m4"], ["zeros"], keepdims=0),
        helper.make_node("MatMul", ["input", "w"], ["sums"]),
        helper.make_node("Add", ["sums", "zeros"], ["both"]),
        helper.make_node("Softmax", ["both"], ["probabilities"], axis=1),
    ]
    return upload(
        folder, Interface("counts", "input", LABELS, names=["a", "b"]), nodes, TensorProto.FLOAT, [None, 2], held
    )


@pytest.mark.parametrize(
    ("make", "why"),
    [(broken, "it failed"), (nonsense, "something that is no probabilities"), (slow, "ms for one answer|too long")],
)
def test_one_that_fails_or_dawdles_is_left_out_and_the_others_vote(
    make: Callable[[Path], Path], why: str, tmp_path: Path
) -> None:
    uploads = {"bad": make(tmp_path / "bad"), "good": counts_model(tmp_path / "good", knows)}
    _, _, details = train(tmp_path / "job", uploads)
    told = details["uploads"]
    assert told["bad"]["weight"] == 0.0
    assert any(part in told["bad"]["why"] for part in why.split("|"))
    assert told["good"]["weight"] > 0


def test_one_whose_file_is_gone_is_left_out(tmp_path: Path) -> None:
    gone = counts_model(tmp_path / "gone", knows)
    (gone / "model.onnx").unlink()
    _, _, details = train(tmp_path / "job", {"gone": gone, "empty": tmp_path / "nowhere"})
    assert all(told["why"].startswith("It could not be tried") for told in details["uploads"].values())


def test_a_damaged_member_is_noticed(tmp_path: Path) -> None:
    recipe, out, _ = train(tmp_path / "job", {"good": counts_model(tmp_path / "good", knows)})
    file = out / "members" / "good" / "model.onnx"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(EvergreenError, match=r"members/good/model\.onnx is not the file that was written"):
        recipe.load(out)


def test_the_report_says_who_votes_and_why(tmp_path: Path) -> None:
    uploads = {"good": counts_model(tmp_path / "good", knows), "poor": guesses(tmp_path / "poor", 1)}
    recipe, out, _ = train(tmp_path / "job", uploads)
    recipe.report(out, recipe.load(out), rows(100, seed=3), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "## Models from devices" in text
    assert "It did not help" in text


def test_scope_is_what_the_base_says(tmp_path: Path) -> None:
    """An upload that is sure of everything brings nothing back that the base refuses."""
    sure = counts_model(tmp_path / "sure", lambda name, label: 30.0 * knows(name, label) + (label == "map"))
    recipe, out, _ = train(tmp_path / "job", {"sure": sure}, ensemble="soft_vote", refuse=0.1)
    _, alone, _ = train(tmp_path / "alone", {}, refuse=0.1)
    texts = [row.input for row in rows(200, seed=8)] + [{"text": "zyx wvu"}, {"text": "quite unheard of"}]
    ours, base = recipe.load(out).predict(texts), recipe.load(alone).predict(texts)
    assert [answer["in_scope"] for answer in ours] == [answer["in_scope"] for answer in base]
    assert not all(answer["in_scope"] for answer in base)


def test_our_own_model_can_be_adopted(tmp_path: Path) -> None:
    recipe, out, _ = train(tmp_path / "job", {}, refuse=0.1)
    folder = tmp_path / "again"
    folder.mkdir()
    shutil.copyfile(out / "model.onnx", folder / "model.onnx")
    said = recipe.load(out)
    adopted = recipe.adopt(folder, Interface("text", "text", (*LABELS, "out_of_scope")))
    texts = [row.input for row in rows(100, seed=8)]
    assert [recipe.decision(a) for a in adopted.predict(texts)] == [recipe.decision(a) for a in said.predict(texts)]
    assert np.mean(recipe.score(adopted, rows(100, seed=8))["accuracy"]) > 0.5
    adopted.close()


def test_names_are_counted_as_a_phone_counts_them() -> None:
    known = words.Vocabulary(["turn", "turn off", "#tur", "# tu", "it's", "# a ", "off the air"])
    counted = known.count("Turn OFF; turn off the air, it's a turn_")
    assert {known.names[i]: n for i, n in counted.items()} == {
        "turn": 3,
        "turn off": 2,
        "#tur": 3,
        "# tu": 3,
        "it's": 1,
        "# a ": 1,
        "off the air": 1,
    }


def test_a_threshold_of_its_own_is_heeded(tmp_path: Path) -> None:
    recipe = Intent(IntentOptions())
    folder = counts_model(tmp_path / "good", knows)
    said = msgspec.json.decode((folder / "interface.json").read_bytes(), type=Interface)
    bounded = Interface(said.kind, said.input, said.labels, said.names, about={"evergreen.threshold": "0.5"})
    texts = [{"text": "unheard of"}, {"text": f"the {TOPICS['map'][0]}"}]
    assert [a["intent"] for a in recipe.adopt(folder, bounded).predict(texts)] == ["out_of_scope", "map"]
    assert [a["in_scope"] for a in recipe.adopt(folder, said).predict(texts)] == [True, True]
    with pytest.raises(InvalidInput, match="not a number"):
        recipe.adopt(folder, Interface(said.kind, "input", LABELS, said.names, about={"evergreen.threshold": "much"}))


def test_what_cannot_be_given_is_refused(tmp_path: Path) -> None:
    recipe = Intent(IntentOptions())
    folder = counts_model(tmp_path / "good", knows)
    with pytest.raises(InvalidInput, match="asks for 5000 numbers") as refused:
        recipe.adopt(folder, Interface("features", "input", LABELS, width=5000))
    assert "dictVectorizer" in str(refused.value.hint)
    with pytest.raises(InvalidInput, match="what is said beside it"):
        recipe.adopt(folder, Interface("counts", "other", LABELS, names=["a"]))
    with pytest.raises(InvalidInput, match="labels"):
        recipe.adopt(folder, Interface("counts", "input", ()))
    narrow = recipe.adopt(folder, Interface("counts", "input", LABELS, names=["a"]))
    with pytest.raises(PredictionFailed):
        narrow.predict([{"text": "a"}])


@pytest.mark.parametrize("model", ["linear", "random_forest"])
def test_the_file_for_phones_decides_as_the_base_does(model: str, tmp_path: Path) -> None:
    good = counts_model(tmp_path / "good", knows)
    recipe, out, details = train(tmp_path / "job", {"good": good}, coreml=True, model=model, refuse=0.05, trees=10)
    assert details["uploads"]["good"]["weight"] > 0
    predictor = recipe.load(out)
    (told,) = exports.check(recipe, predictor, rows(100, seed=4), exports.files(out), tmp_path / "scratch")
    assert (told["file"], told["format"], told["agree"]) == ("intent.mlmodel", "coreml", 1.0)
    predictor.close()
