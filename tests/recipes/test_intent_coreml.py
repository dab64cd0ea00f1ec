"""The CoreML file of an intent model: a phone that counts as documented and executes the file answers as the server."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "backends"))  # for `coreml_interpreter` and `coreml_protos`

from coreml_interpreter import probabilities
from coreml_protos import Model

from evergreen.backends.format.coreml import CoremlFormat
from evergreen.core.errors import JobFailed
from evergreen.core.recipe import Job, Row
from evergreen.recipes.intent import Intent, IntentOptions, coreml, counting, graph, words
from evergreen.recipes.intent.described import LEAST_VOTE, Described, Forest, Linear, Tree

NAMES = ("a", "b", "b a", "it's", "ab", "#ab", "# a", "#'s ", "日本", "½", "é", "ß", "turn off", "off")
TEXTS = st.one_of(
    st.text(st.sampled_from("abABis'’ _-.,!\t\n\u00a0éÉßẞ日本1½²😀\u0301\u203fx"), max_size=40),
    st.lists(st.sampled_from(["turn", "off", "it's", "a", "b", "ab", "日本"]), max_size=8).map(" ".join),
)


def count(text: str, metadata: Any) -> dict[str, float]:
    """Count as the documentation tells a phone to: no regular expressions, no code of ours."""
    told = json.loads(metadata["evergreen.features"])
    known = metadata["evergreen.names"].split("\n")
    found, word = [], ""
    for character in [*text.lower(), " "]:
        letter = unicodedata.category(character)[0] in "LN"
        if letter or (character == "'" and word and not word.endswith("'")):
            word += character
            continue
        found += [word.removesuffix("'")] if word else []
        word = ""
    counts: Counter[str] = Counter()
    for n in range(1, told["words"] + 1):
        counts.update(" ".join(found[i : i + n]) for i in range(len(found) - n + 1))
    for padded in (f" {word} " for word in found):
        low, high = told["runs"] or (1, 0)
        pieces = [padded[i : i + n] for n in range(low, high + 1) for i in range(len(padded) - n + 1)]
        counts.update(f"#{piece}" for piece in pieces if piece != padded)
    return {name: float(n) for name, n in counts.items() if name in known} or {known[0]: 0.0}


class Phone:
    """Executes a file row by row."""

    def __init__(self, data: bytes) -> None:
        self.spec = Model.FromString(data)
        self.metadata = self.spec.description.metadata.userDefined

    def answer(self, text: str) -> tuple[str, dict[str, float]]:
        said = probabilities(self.spec, {"counts": count(text, self.metadata)})
        return max(said, key=lambda label: said[label]), said


def linear(seed: int = 0, limit: float | None = 0.2) -> Described:
    rng = np.random.default_rng(seed)
    levels = rng.integers(-127, 128, (len(NAMES), 4)).astype(np.int8)
    model = Linear(levels, rng.uniform(0.01, 0.02, 4), rng.normal(0, 1, 4))
    return Described(NAMES, rng.uniform(1, 2, len(NAMES)).astype(np.float32), ("p", "q", "r", "s"), model, 0.7, limit)


def forest(seed: int = 0, limit: float | None = 0.3, trees: int = 10) -> Described:
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(seed)
    idf = rng.uniform(1, 2, len(NAMES)).astype(np.float32)
    counts = rng.integers(0, 3, (60, len(NAMES)))
    x = np.asarray(counting.features(counts, idf).todense()).astype(np.float32)
    fitted = RandomForestClassifier(trees, random_state=seed).fit(x, rng.integers(0, 3, 60))
    grid, grown = 2.0**19, []
    for tree in (each.tree_ for each in fitted.estimators_):
        votes = (tree.value[:, 0, :] * grid).round() / grid
        threshold = np.floor(tree.threshold * 2**20) / 2**20
        grown.append(Tree(tree.children_left, tree.children_right, tree.feature, threshold.astype(np.float32), votes))
    return Described(NAMES, idf, ("p", "q", "r"), Forest(grown), 0.8, limit)


MODELS = {
    "linear": linear(),
    "linear without a limit": linear(1, None),
    "linear with a limit below 0": linear(2, -0.4),
    "forest": forest(),
    "forest without a limit": forest(1, None),
    "forest with a limit that is a share": forest(2, 0.5),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Phone, Any, Any]]:
    """Write every model for a phone, and as the server has it; read the phone's file as the server would."""
    found = {}
    for name, described in MODELS.items():
        folder = tmp_path_factory.mktemp("made")
        coreml.write(folder / "m.mlmodel", described, "1.0.7", {"trained": "today"})
        graph.write(described, folder / "served.onnx")
        interface = CoremlFormat().read(folder / "m.mlmodel", folder)
        sessions = [
            ort.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
            for file in ("served.onnx", "model.onnx")
        ]
        found[name] = (Phone((folder / "m.mlmodel").read_bytes()), interface, sessions)
    return found


def served(session: Any, texts: Sequence[str]) -> tuple[list[str], Any]:
    plain = np.array([[words.plain(text)] for text in texts], dtype=object)
    label, found = session.run(["label", "probabilities"], {"text": plain})
    return label.tolist(), found


@pytest.mark.parametrize("name", MODELS)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
@settings(max_examples=60)
def test_a_phone_answers_as_the_server(made: dict[str, Any], name: str, texts: list[str]) -> None:
    phone, interface, (server, back) = made[name]
    described = MODELS[name]
    labels, found = served(server, [*texts, ""])
    vocabulary = words.Vocabulary(interface.names)
    for text, label, row in zip([*texts, ""], labels, found, strict=True):
        ours, said = phone.answer(text)
        assert ours == label
        shares = np.array([said[answer] for answer in described.answers])
        expected = calibrated(described, shares) if isinstance(described.model, Forest) else shares
        np.testing.assert_allclose(row, expected, atol=3e-6)
        counts = np.zeros((1, len(NAMES)), np.float32)
        for place, n in vocabulary.count(text).items():
            counts[0, place] = n
        (read_back,) = back.run(None, {"counts": counts})[0]
        np.testing.assert_allclose(read_back, shares, atol=3e-6)
        assert described.answers[read_back.argmax()] == label


def calibrated(described: Described, shares: Any) -> Any:
    """Return the server's probabilities as the documentation says they follow from a forest's numbers."""
    assert isinstance(described.model, Forest)
    votes = shares / shares[: len(described.labels)].sum()
    powers = (votes + LEAST_VOTE) ** (1 / described.temperature)
    return powers / powers.sum()


@pytest.mark.parametrize("name", MODELS)
def test_the_file_says_what_a_phone_must_know(made: dict[str, Any], name: str) -> None:
    phone, interface, _ = made[name]
    described = MODELS[name]
    assert tuple(phone.metadata["evergreen.names"].split("\n")) == NAMES
    told = json.loads(phone.metadata["evergreen.features"])
    assert (told["lower"], told["words"], told["runs"]) == (True, 2, [2, 3])
    assert told["pattern"] == words.PATTERN
    assert json.loads(phone.metadata["evergreen.labels"]) == list(described.answers)
    assert phone.metadata.get("evergreen.outside") == (None if described.limit is None else "out_of_scope")
    assert phone.metadata["trained"] == "today"
    assert phone.spec.description.metadata.versionString == "1.0.7"
    assert interface.kind == "counts"
    assert interface.names == NAMES
    assert interface.labels == described.answers


@pytest.mark.parametrize("name", MODELS)
def test_every_byte_is_a_field_that_coremltools_knows(made: dict[str, Any], name: str) -> None:
    from google.protobuf.unknown_fields import UnknownFieldSet

    def look(message: Any) -> None:
        assert len(UnknownFieldSet(message)) == 0
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            entries = list(value) if field.is_repeated and not hasattr(value, "items") else []
            for each in entries or ([] if field.is_repeated else [value]):
                look(each)

    phone = made[name][0]
    look(phone.spec)
    assert phone.spec.specificationVersion == 3
    steps = [each.WhichOneof("Type") for each in phone.spec.pipelineClassifier.pipeline.models]
    last = "neuralNetworkClassifier" if name.startswith("linear") else "treeEnsembleClassifier"
    assert steps == ["dictVectorizer", "scaler", "normalizer", last]


def test_a_score_that_is_just_the_limit_is_in_scope_and_one_just_below_is_not(tmp_path: Path) -> None:
    levels = np.array([[100, -100]], np.int8)
    for limit, label in ((0.3, "yes"), (0.30001, "out_of_scope")):
        described = Described(
            ("go",), np.ones(1, np.float32), ("yes", "no"), Linear(levels, np.full(2, 0.003), np.zeros(2)), 0.1, limit
        )
        coreml.write(tmp_path / "m.mlmodel", described)
        assert Phone((tmp_path / "m.mlmodel").read_bytes()).answer("go")[0] == label


@pytest.mark.parametrize("limit", [0.1, 0.25, 0.3, 0.7, 0.9])
def test_shares_of_a_forest_meet_a_limit_as_on_the_server(tmp_path: Path, limit: float) -> None:
    """As many of ten trees vote for `yes` as there are names in the text."""
    trees = []
    for place in range(10):
        votes = np.zeros((3, 2))
        votes[1], votes[2] = [0.0, 1e-6 * 0], [1.0, 0.0]
        trees.append(
            Tree(np.array([1, -1, -1]), np.array([2, -1, -1]), np.array([place, 0, 0]), np.zeros(3, np.float32), votes)
        )
    names = tuple("abcdefghij")
    described = Described(names, np.ones(10, np.float32), ("yes", "no"), Forest(trees), 1.0, limit)
    coreml.write(tmp_path / "m.mlmodel", described)
    graph.write(described, tmp_path / "m.onnx")
    phone = Phone((tmp_path / "m.mlmodel").read_bytes())
    texts = [" ".join(names[:n]) for n in range(11)]
    labels, _ = served(ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"]), texts)
    assert [phone.answer(text)[0] for text in texts] == labels
    assert labels == ["out_of_scope" if n / 10 < limit else "yes" for n in range(11)]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_64_bit_features_go_where_32_bit_ones_would(seed: int) -> None:
    rng = np.random.default_rng(seed)
    thresholds = rng.uniform(0, 1, 50).astype(np.float32)
    drawn = coreml._between(thresholds)
    for threshold, ours in zip(thresholds, drawn, strict=True):
        above = np.nextafter(threshold, np.float32(2)).astype(np.float64)
        middle = (np.float64(threshold) + above) / 2
        for x in (float(threshold), middle, np.nextafter(middle, 0), np.nextafter(middle, 2), above):
            assert (x <= ours) == (np.float32(x) <= threshold)


def test_a_forest_that_is_too_large_for_a_phone_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreml, "MOST_NODES", 100)
    with pytest.raises(JobFailed, match="too many for a phone"):
        coreml.write(tmp_path / "m.mlmodel", forest())
    assert not list(tmp_path.iterdir())


def test_the_file_is_small(tmp_path: Path) -> None:
    names = tuple(f"name {i}" for i in range(5000))
    rng = np.random.default_rng(0)
    model = Linear(rng.integers(-127, 128, (5000, 150)).astype(np.int8), np.full(150, 0.01), np.zeros(150))
    described = Described(names, np.ones(5000, np.float32), tuple(f"intent {i}" for i in range(150)), model, 1.0, 0.1)
    coreml.write(tmp_path / "m.mlmodel", described)
    assert (tmp_path / "m.mlmodel").stat().st_size < 5000 * 150 * 1.3


@pytest.mark.parametrize("kind", ["linear", "random_forest"])
def test_a_trained_model_answers_on_a_phone_as_on_the_server(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    nouns = {
        "light": ["lamp", "light", "bulb"],
        "music": ["song", "music", "tune"],
        "heat": ["heating", "warm", "cold"],
    }
    filler = ["please", "can you", "the", "my", "now", "it's", "turn", "off", "on", "in the kitchen"]
    rows = []
    for i in range(150):
        intent = list(nouns)[i % 3]
        text = " ".join([*rng.choice(filler, 3), rng.choice(nouns[intent]), *rng.choice(filler, 1)])
        rows.append(Row(str(i), {"text": text}, intent))
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    (data / "train.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    recipe = Intent(IntentOptions.model_validate({"model": kind, "trees": 10, "coreml": True}))
    recipe.train(Job(data, out))
    (file,) = (out / "exports").glob("*.mlmodel")
    phone = Phone(file.read_bytes())
    texts = [{"text": row.input["text"]} for row in rows[:60]] + [{"text": "what is this"}, {"text": ""}]
    answers = recipe.load(out).predict(texts)
    assert [phone.answer(each["text"])[0] for each in texts] == [answer["intent"] for answer in answers]
    features = msgspec.json.decode((out / "features.json").read_bytes())
    assert "\n".join(features["names"]) == phone.metadata["evergreen.names"]


def test_nothing_heavy_is_imported_with_the_writer() -> None:
    program = (
        "import sys, evergreen.recipes.intent.coreml\n"
        "assert not {'numpy', 'coremltools', 'google.protobuf', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
