"""What a recipe must be able to do; the only file a recipe author has to read."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import msgspec
from pydantic import BaseModel, ConfigDict

from evergreen.core.errors import InvalidInput, JobFailed
from evergreen.core.records import Json

#: metric -> one figure per holdout row. Means are compared, row by row in pairs; `Recipe.metrics` says what they mean.
Scores = Mapping[str, Sequence[float]]

#: What drift is watched by: a number, a category as text, or words, of which the share that is new is watched.
Described = Mapping[str, "float | str | Sequence[str]"]


@dataclass(frozen=True)
class Metric:
    """What one score tells of a row: whether more of it is better, and what its mean is called in words."""

    means: str = ""  #: "share of the answers that are right"
    larger_is_better: bool = True
    kind: Literal["binary", "real"] = "real"  #: binary: 0 or 1 for each row


#: Scores that go by these names mean this, unless a recipe declares them otherwise.
METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("share of the answers that are right", kind="binary"),
    "log_likelihood": Metric("mean logarithm of the probability given to what is right; 0 is the best"),
}


class PluginOptions(BaseModel):
    """Settings of one plugin. Unknown keys are errors; values do not change after start."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a frozen dataset: `train.jsonl` or `holdout.jsonl`."""

    id: str
    input: Json
    label: Json
    weight: float = 1.0
    group: str | None = None
    time: float | None = None  #: when it was stored, seconds since the epoch
    origin: str | None = None  #: the source or door it came through, where the gate is to judge by that


@dataclass(frozen=True)
class Datum:
    """What a recipe makes of a raw row: something to store."""

    input: Json
    label: Json = None
    weight: float = 1.0
    group: str | None = None


class Predictor(Protocol):
    """A loaded model, ready to answer from any thread."""

    def predict(self, inputs: Sequence[Json]) -> Sequence[Json]:
        """Answer each input, in order."""
        ...

    def close(self) -> None:
        """Let go of memory and handles."""
        ...


@dataclass(frozen=True)
class Interface:
    """What a model from a device asks for and gives: `model.onnx` has these inputs and outputs.

    - `text`: input of shape (n, 1) of strings; the text itself.
    - `counts`: input of shape (n, len(names)) of floats; how often each of `names` (words, pairs of words) occurs.
    - `features`: input of shape (n, width) of floats, in an order that only its maker's vocabulary tells.
    The output `probabilities` has shape (n, len(labels)), rows summing to 1.
    """

    kind: Literal["text", "counts", "features"]
    input: str  #: name of the graph's input
    labels: Sequence[str]
    names: Sequence[str] = ()  #: for `counts`: what each column counts
    width: int = 0  #: for `features`
    about: Mapping[str, str] = field(default_factory=dict)  #: metadata of the file: author, vocabulary, …


def _never() -> bool:
    return False


def _nothing(phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Job:
    """Everything a training is given: folders, bounds, and a way to say how far it is."""

    data: Path  #: holds `train.jsonl` and whatever else `Recipe.write` laid down. No holdout.
    out: Path  #: an empty folder for the artifact
    base: Path | None = None  #: the champion's artifact, to go on from
    checkpoints: Path | None = None  #: a folder that survives a lost worker
    seed: int = 0
    threads: int = 1
    uploads: Mapping[str, Path] = field(default_factory=dict)  #: models from devices: id -> folder with `model.onnx`
    stopping: Callable[[], bool] = _never  #: the worker is about to go: save a checkpoint
    every_s: float = 60.0  #: how long to train between two checkpoints
    report: Callable[[str, int, int, Mapping[str, float]], None] = field(
        default=_nothing
    )  #: phase, step, total, metrics
    _saved: list[float] = field(default_factory=lambda: [time.monotonic()])

    def rows(self) -> Iterator[Row]:
        """Read the rows to learn from."""
        return read_rows(self.data / "train.jsonl")

    def resume(self) -> tuple[int, Path] | None:
        """Return the newest checkpoint, its step and its folder, that this or a lost worker left."""
        found = sorted(_checkpoints(self.checkpoints).items()) if self.checkpoints is not None else []
        return found[-1] if found else None

    def due(self) -> bool:
        """Say whether it is time to save a checkpoint: ask at every step; it costs nothing."""
        if self.checkpoints is None:
            return False
        return self.stopping() or time.monotonic() - self._saved[0] >= self.every_s

    @contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """Lend an empty folder to write the state after `step` into; it counts once the block has ended.

        The two newest are kept. Raises `JobFailed` (preempted) after saving if the worker is about to go.
        """
        if self.checkpoints is None:
            raise RuntimeError("this training has no checkpoints; ask `due` first")
        draft = self.checkpoints / f".{step}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        place = self.checkpoints / str(step)
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
        for old in sorted(_checkpoints(self.checkpoints).items())[:-2]:
            shutil.rmtree(old[1], ignore_errors=True)
        self._saved[0] = time.monotonic()
        if self.stopping():
            raise JobFailed(f"The worker has to go; what was learnt up to step {step} is saved.", kind="preempted")


def spelt(label: Json) -> str:
    """Write a label as the keys of `probabilities` have it.

    >>> spelt(True), spelt(3.0), spelt("lod")
    ('true', '3', 'lod')
    """
    if isinstance(label, str):
        return label
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return msgspec.json.encode(label).decode()


def _checkpoints(folder: Path) -> dict[int, Path]:
    return {int(path.name): path for path in folder.glob("*") if path.name.isdecimal()}


class Recipe(ABC):
    """How one kind of model is written to disk, trained, loaded and scored.

    Heavy imports (scikit-learn, torch) belong inside `train`; `load` is called in the serving process
    and must be light. Importing a recipe must be cheap.
    """

    Options: ClassVar[type[PluginOptions]] = PluginOptions
    #: An answer takes well under a millisecond: give it on the event loop, without a thread.
    quick: ClassVar[bool] = False
    #: Rows are a time series: split by time, not by hash.
    timely: ClassVar[bool] = False
    #: What the scores mean; a score that is not named here is real and better when larger.
    metrics: ClassVar[Mapping[str, Metric]] = METRICS

    def __init__(self, options: Any) -> None:
        self.options = options

    def check(self, value: Json) -> Json:
        """Return the input to predict from, or raise `InvalidInput` that names the field."""
        return value

    def sample(self, row: Mapping[str, Json]) -> Datum:
        """Make a datum of a raw row, or raise `InvalidInput` that names the field.

        By default a row has `input` and perhaps `label`, `weight`, `group`.
        """
        if "input" not in row:
            raise InvalidInput("input is missing", field="input")
        weight = row.get("weight", 1.0)
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise InvalidInput("weight is not a number from 0 up", field="weight")
        group = row.get("group")
        return Datum(self.check(row["input"]), row.get("label"), float(weight), None if group is None else str(group))

    def judges(self, row: Row) -> bool:
        """Say whether a row may sit in the holdout; a row nobody vouches for may teach but not judge."""
        return True

    @abstractmethod
    def train(self, job: Job) -> Mapping[str, Json]:
        """Learn from `job.rows()`, write the artifact into `job.out`, return details worth keeping."""

    @abstractmethod
    def load(self, artifact: Path) -> Predictor:
        """Return the model that `train` wrote into `artifact`. Raises `Corrupt` if it is not whole."""

    @abstractmethod
    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        """Measure `predictor` on rows it has never seen: one figure per row and metric."""

    def slices(self, row: Row) -> Mapping[str, str]:
        """Name the parts of the holdout that a row belongs to ({"language": "de"}), each judged by itself; none by default."""
        return {}

    def stratum(self, row: Row) -> str:
        """Name the layer of the holdout a row was drawn from, where each has a fixed number of rows; one by default."""
        return ""

    def certainty(self, output: Json, label: Json) -> tuple[float, bool, float] | None:
        """Say how probable an answer called what it decided on, whether that is right, and how probable it called
        what is right. By default read from its `probabilities`; None where it has none.
        """
        shares = output.get("probabilities") if isinstance(output, Mapping) else None
        if not isinstance(shares, Mapping) or not shares:
            return None
        said, right = spelt(self.decision(output)), spelt(label)
        if said not in shares:
            said = max(shares, key=lambda name: shares[name])
        return float(shares[said]), said == right, float(shares.get(right, 0.0))

    def report(self, artifact: Path, predictor: Predictor, rows: Sequence[Row], folder: Path) -> None:
        """Write a report for people (`report.md`, pictures) on a trained model; nothing by default."""

    def adopt(self, upload: Path, interface: Interface) -> Predictor:
        """Load a model that a device sent in (`upload` holds `model.onnx`), so that `score` can judge it.

        Raises `InvalidInput` if what it asks for cannot be given. A recipe that takes no such models has this one.
        """
        raise InvalidInput("this loop takes no models from devices", field="model")

    def decision(self, output: Json) -> Json:
        """Return what of an answer is decided on; the rest (probabilities, say) may differ by rounding."""
        return output

    def write(self, rows: Iterable[Row], folder: Path, side: str) -> int:
        """Write one side of a frozen dataset, return how many rows. JSON lines unless overridden."""
        n = 0
        with (folder / f"{side}.jsonl").open("wb") as out:
            for row in rows:
                out.write(msgspec.json.encode(row) + b"\n")
                n += 1
        return n

    def describe(self, value: Json) -> Described:
        """Return what drift of the inputs is watched by; nothing by default. What is missing is left out."""
        return {}

    def describe_output(self, output: Json) -> Described:
        """Return what drift of the answers is watched by: the decision as text, how sure it is. Nothing by default."""
        return {}


_decoder = msgspec.json.Decoder(Row)


def read_rows(path: Path) -> Iterator[Row]:
    """Read a side of a frozen dataset."""
    with path.open("rb") as lines:
        for line in lines:
            yield _decoder.decode(line)
