"""What every recipe promises, as a test class to inherit from."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from evergreen.core.errors import EvergreenError, InvalidInput
from evergreen.core.recipe import Job, Predictor, Recipe, Row
from evergreen.core.records import Json

_HEAVY = ("numpy", "scipy", "pandas", "sklearn", "torch", "transformers", "onnx", "onnxruntime", "matplotlib", "PIL")

_IMPORT = """
import sys
__import__(sys.argv[1])
print(" ".join(name for name in sys.argv[2:] if name in sys.modules))
"""

_SERVE = """
import pathlib, sys, msgspec
from importlib import import_module
module, name, options, artifact, inputs, *unwanted = sys.argv[1:]
cls = getattr(import_module(module), name)
predictor = cls(cls.Options.model_validate_json(options)).load(pathlib.Path(artifact))
answers = [predictor.predict([value])[0] for value in msgspec.json.decode(pathlib.Path(inputs).read_bytes())]
loaded = [name for name in unwanted if name in sys.modules]
sys.stdout.buffer.write(msgspec.json.encode({"answers": answers, "loaded": loaded}))
"""


@dataclass(frozen=True)
class Trained:
    """One training and what it left."""

    artifact: Path
    train: Sequence[Row]
    holdout: Sequence[Row]
    details: Mapping[str, Json]
    steps: list[tuple[str, int, int, Mapping[str, float]]] = field(default_factory=list)


class RecipeContract:
    """Inherit, and give class-scoped fixtures (class methods): `recipe`; `rows`, raw rows that `recipe.sample` accepts, oldest first;
    `bad_rows`, pairs of a row that it must refuse and the field that it must name.

    Of the rows the last fifth are held out. Give enough for a training that is worth something, few enough that it
    takes seconds: several tests share one training, one trains again.
    """

    #: Packages that answering must not need.
    unwanted: ClassVar[Sequence[str]] = ("sklearn", "torch", "transformers", "onnx", "matplotlib", "pandas")

    def decision(self, answer: Json) -> Json:
        """Return the part of an answer that two trainings with one seed must agree on."""
        return answer["label"] if isinstance(answer, dict) and "label" in answer else answer

    @pytest.fixture(scope="class")
    @classmethod
    def trained(
        cls, recipe: Recipe, rows: Sequence[Mapping[str, Json]], tmp_path_factory: pytest.TempPathFactory
    ) -> Trained:
        """Train once for all tests of the class."""
        return train(recipe, split(recipe, rows), tmp_path_factory.mktemp("trained"))

    @pytest.fixture
    def predictor(self, recipe: Recipe, trained: Trained) -> Iterator[Predictor]:
        """Load the trained model anew for each test."""
        loaded = recipe.load(trained.artifact)
        yield loaded
        loaded.close()

    def test_importing_it_imports_nothing_heavy(self, recipe: Recipe) -> None:
        assert _python(_IMPORT, type(recipe).__module__, *_HEAVY).decode().split() == []

    def test_it_is_built_from_its_options_alone(self, recipe: Recipe) -> None:
        cls = type(recipe)
        again = cls.Options.model_validate_json(recipe.options.model_dump_json())
        assert again == recipe.options
        assert isinstance(cls.quick, bool)
        assert isinstance(cls.timely, bool)

    def test_a_sample_is_plain_json(self, recipe: Recipe, rows: Sequence[Mapping[str, Json]]) -> None:
        for row in rows:
            datum = recipe.sample(row)
            stored = [datum.input, datum.label, datum.weight, datum.group]
            assert msgspec.json.decode(msgspec.json.encode(stored)) == stored
            assert isfinite(datum.weight)
            assert datum.weight >= 0

    def test_reading_a_row_leaves_it_as_it_was(self, recipe: Recipe, rows: Sequence[Mapping[str, Json]]) -> None:
        before = copy.deepcopy(rows[0])
        value = recipe.sample(rows[0]).input
        kept = copy.deepcopy(value)
        recipe.check(value)
        assert rows[0] == before
        assert value == kept

    def test_what_was_checked_passes_unchanged(self, recipe: Recipe, rows: Sequence[Mapping[str, Json]]) -> None:
        for row in rows[:50]:
            datum = recipe.sample(row)
            assert recipe.check(datum.input) == datum.input
            again = recipe.sample({"input": datum.input, "label": datum.label})
            assert (again.input, again.label) == (datum.input, datum.label)

    def test_bad_rows_are_refused_by_name(
        self, recipe: Recipe, bad_rows: Sequence[tuple[Mapping[str, Json], str]]
    ) -> None:
        for row, name in bad_rows:
            with pytest.raises(InvalidInput) as refused:
                recipe.sample(row)
            assert refused.value.field == name, row
            assert str(refused.value)

    def test_inputs_and_answers_are_described_by_what_can_be_counted(
        self, recipe: Recipe, trained: Trained, predictor: Predictor
    ) -> None:
        inputs = [row.input for row in trained.holdout[:20]]
        said = [recipe.describe(value) for value in inputs]
        said += [recipe.describe_output(answer) for answer in predictor.predict(inputs)]
        for one in said:
            for name, value in one.items():
                assert isinstance(name, str)
                if isinstance(value, list | tuple):
                    assert all(isinstance(word, str) for word in value)
                else:
                    assert isinstance(value, str) or isfinite(value)  # type: ignore[arg-type]

    def test_judging_is_yes_or_no(self, recipe: Recipe, trained: Trained) -> None:
        assert {recipe.judges(row) for row in trained.holdout} <= {True, False}

    def test_training_says_how_far_it_is(self, trained: Trained) -> None:
        assert trained.steps
        for phase, step, total, metrics in trained.steps:
            assert phase
            assert 0 <= step <= total
            assert all(isfinite(value) for value in metrics.values())

    def test_details_are_plain_json(self, trained: Trained) -> None:
        assert msgspec.json.decode(msgspec.json.encode(trained.details))

    def test_every_input_is_answered_in_order(self, predictor: Predictor, trained: Trained) -> None:
        inputs = [row.input for row in trained.holdout]
        answers = predictor.predict(inputs)
        assert len(answers) == len(inputs)
        assert [self.decision(a) for a in answers[:20]] == [
            self.decision(predictor.predict([v])[0]) for v in inputs[:20]
        ]
        assert msgspec.json.encode(answers)
        assert len(predictor.predict([])) == 0

    def test_every_row_is_scored(self, recipe: Recipe, predictor: Predictor, trained: Trained) -> None:
        scores = recipe.score(predictor, trained.holdout)
        assert scores
        for name, figures in scores.items():
            assert len(figures) == len(trained.holdout), name
            assert all(isfinite(figure) for figure in figures), name

    def test_scores_belong_to_rows(self, recipe: Recipe, predictor: Predictor, trained: Trained) -> None:
        forwards = recipe.score(predictor, trained.holdout)
        backwards = recipe.score(predictor, list(reversed(trained.holdout)))
        for name, figures in forwards.items():
            assert list(reversed(backwards[name])) == pytest.approx(list(figures), rel=1e-4, abs=1e-4)

    def test_a_second_load_answers_the_same(self, recipe: Recipe, predictor: Predictor, trained: Trained) -> None:
        inputs = [row.input for row in trained.holdout]
        again = recipe.load(trained.artifact)
        assert again.predict(inputs) == predictor.predict(inputs)
        again.close()

    def test_four_threads_are_answered_the_same(self, predictor: Predictor, trained: Trained) -> None:
        inputs = [row.input for row in trained.holdout[:60]]
        alone = [predictor.predict([value])[0] for value in inputs]
        with ThreadPoolExecutor(4) as pool:
            together = pool.map(lambda _: [predictor.predict([value])[0] for value in inputs], range(4))
        assert all(answers == alone for answers in together)

    def test_another_process_and_place_answers_the_same(
        self, recipe: Recipe, predictor: Predictor, trained: Trained, tmp_path: Path
    ) -> None:
        moved = shutil.copytree(trained.artifact, tmp_path / "moved elsewhere")
        inputs = [row.input for row in trained.holdout[:20]]
        (tmp_path / "inputs.json").write_bytes(msgspec.json.encode(inputs))
        cls, options = type(recipe), recipe.options.model_dump_json()
        said = msgspec.json.decode(
            _python(
                _SERVE, cls.__module__, cls.__name__, options, str(moved), str(tmp_path / "inputs.json"), *self.unwanted
            )
        )
        here = msgspec.json.decode(msgspec.json.encode([predictor.predict([value])[0] for value in inputs]))
        assert said == {"answers": here, "loaded": []}

    def test_a_damaged_artifact_is_refused(
        self, recipe: Recipe, predictor: Predictor, trained: Trained, tmp_path: Path
    ) -> None:
        """Cut each file short, then take it away: it is refused, or the file was not needed to answer."""
        inputs = [row.input for row in trained.holdout[:20]]
        whole = predictor.predict(inputs)
        refused = 0
        for place, name in enumerate(_files(trained.artifact)):
            for damage in ("cut", "gone"):
                folder = shutil.copytree(trained.artifact, tmp_path / f"{place}-{damage}")
                data = (folder / name).read_bytes()
                (folder / name).unlink()
                if damage == "cut":
                    (folder / name).write_bytes(data[: len(data) // 2])
                try:
                    assert recipe.load(folder).predict(inputs) == whole, f"{name} is {damage}"
                except EvergreenError:
                    refused += 1
        assert refused, "no file of the artifact is needed to load it"

    def test_an_empty_folder_is_no_model(self, recipe: Recipe, tmp_path: Path) -> None:
        with pytest.raises(EvergreenError):
            recipe.load(tmp_path)

    def test_the_same_seed_gives_the_same_decisions(
        self, recipe: Recipe, predictor: Predictor, trained: Trained, tmp_path: Path
    ) -> None:
        again = recipe.load(train(recipe, (trained.train, trained.holdout), tmp_path).artifact)
        inputs = [row.input for row in trained.holdout]
        first, second = predictor.predict(inputs), again.predict(inputs)
        again.close()
        assert [self.decision(a) for a in first] == [self.decision(a) for a in second]

    def test_nothing_in_the_artifact_is_a_pickle(self, trained: Trained) -> None:
        for name in _files(trained.artifact):
            path = trained.artifact / name
            assert path.suffix not in {".pkl", ".pickle", ".joblib", ".npy"}, name
            with path.open("rb") as file:
                start = file.read(2)
            assert not (start[:1] == b"\x80" and start[1:] in {b"\x02", b"\x03", b"\x04", b"\x05"}), name
            if zipfile.is_zipfile(path):
                assert not [n for n in zipfile.ZipFile(path).namelist() if n.endswith(".pkl")], name

    def test_a_report_is_written(self, recipe: Recipe, predictor: Predictor, trained: Trained, tmp_path: Path) -> None:
        before = {name: (trained.artifact / name).read_bytes() for name in _files(trained.artifact)}
        if type(recipe).report is Recipe.report:
            pytest.skip("this recipe writes no report")
        recipe.report(trained.artifact, predictor, trained.holdout, tmp_path)
        assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("# ")
        assert {name: (trained.artifact / name).read_bytes() for name in _files(trained.artifact)} == before


def split(recipe: Recipe, rows: Sequence[Mapping[str, Json]]) -> tuple[list[Row], list[Row]]:
    """Read raw rows, oldest first, and hold out the last fifth, as far as they may judge."""
    read = []
    for i, row in enumerate(rows):
        datum = recipe.sample(row)
        read.append(Row(f"{i:06}", datum.input, datum.label, datum.weight, datum.group, float(i)))
    cut = len(read) - len(read) // 5
    return read[:cut], [row for row in read[cut:] if recipe.judges(row)]


def train(recipe: Recipe, sides: tuple[Sequence[Row], Sequence[Row]], folder: Path, seed: int = 7) -> Trained:
    """Train below `folder` as a runner does: the job sees the training side only."""
    data, out = folder / "data", folder / "artifact"
    data.mkdir(parents=True)
    out.mkdir()
    assert recipe.write(sides[0], data, "train") == len(sides[0])
    steps: list[tuple[str, int, int, Mapping[str, float]]] = []
    job = Job(data, out, seed=seed, report=lambda *step: steps.append(step))
    details = recipe.train(job)
    return Trained(out, sides[0], sides[1], details, steps)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _python(script: str, *arguments: str) -> bytes:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
