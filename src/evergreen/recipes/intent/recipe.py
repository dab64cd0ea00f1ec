"""The intent recipe: the plugin that the other files of this folder make up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log
from pathlib import Path
from time import perf_counter
from typing import ClassVar

from evergreen.core.errors import InvalidInput, TooLarge
from evergreen.core.recipe import Datum, Described, Interface, Job, PluginOptions, Predictor, Recipe, Row, Scores
from evergreen.core.records import Json
from evergreen.recipes.intent.options import IntentOptions

#: What rows out of scope are called in a well-known data set; always understood.
_OOS = "oos"


class Intent(Recipe):
    """A text in, an intent out: one of those learned, or `out_of_scope`.

    >>> recipe = Intent(IntentOptions())
    >>> recipe.sample({"text": "turn the light off", "label": "light_off"})
    Datum(input={'text': 'turn the light off'}, label='light_off', weight=1.0, group=None)
    >>> recipe.check("what is up")
    {'text': 'what is up'}
    """

    Options: ClassVar[type[PluginOptions]] = IntentOptions
    quick: ClassVar[bool] = True
    options: IntentOptions

    def check(self, value: Json) -> Json:
        """Return the input as `{"text": …}`, or raise `InvalidInput`. A bare string is a text."""
        if isinstance(value, str):
            text: Json = value
        elif isinstance(value, Mapping):
            if "text" not in value:
                raise InvalidInput("text is missing", field="text")
            text = value["text"]
        else:
            raise InvalidInput("the input is neither a text nor an object with a text", field="input")
        if not isinstance(text, str):
            raise InvalidInput("text is not a string", field="text")
        if not text or text.isspace():
            raise InvalidInput("text is empty", field="text")
        if len(text) > self.options.max_length:
            raise TooLarge(f"text has {len(text):,} characters; {self.options.max_length:,} are allowed", field="text")
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise InvalidInput("text has half of a character (a lone surrogate)", field="text") from e
        return {"text": text}

    def sample(self, row: Mapping[str, Json]) -> Datum:
        """Make a datum of a row with `input` (or `text`) and perhaps `label` (or `intent`), `weight`, `group`."""
        if "input" not in row and "text" not in row:
            raise InvalidInput("input is missing", field="input")
        value = self.check(row["input"] if "input" in row else {"text": row["text"]})
        label = self._label(row.get("label", row.get("intent")))
        weight = row.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight) or weight < 0:
            raise InvalidInput("weight is not a number from 0 up", field="weight")
        group = row.get("group")
        return Datum(value, label, float(weight), None if group is None else str(group))

    def _label(self, label: Json) -> str | None:
        if label is None:
            return None
        if not isinstance(label, str):
            raise InvalidInput("label is not the name of an intent", field="label")
        name = label.strip()
        if not name or len(name) > 200:
            raise InvalidInput("label is not a name of 1 to 200 characters", field="label")
        return self.options.out_of_scope_label if name == _OOS else name

    def train(self, job: Job) -> Mapping[str, Json]:
        """Fit, let models from devices vote where they help, export, and prove that the graph decides alike."""
        from evergreen.recipes.intent import artifact, training

        started = perf_counter()
        rows = list(job.rows())
        fitted = training.fit(self.options, rows, seed=job.seed, threads=job.threads, report=job.report)
        return artifact.write(self.options, fitted, job, started)

    def load(self, artifact: Path) -> Predictor:
        """Open the graph with onnxruntime, and those of the models that vote with it."""
        from evergreen.recipes.intent import loading

        return loading.load(artifact)

    def adopt(self, upload: Path, interface: Interface) -> Predictor:
        """Load a model from a device. Raises `InvalidInput` if what it asks for cannot be given."""
        from evergreen.recipes.intent import adopted

        return adopted.load(upload, interface, self.options.out_of_scope_label)

    def decision(self, output: Json) -> Json:
        """Return the intent."""
        return output["intent"]

    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        """Return `accuracy` (0 or 1; a row out of scope is right if refused) and `log_likelihood` (of the right answer,
        at least log 1e-4, as for one that is not among the five named) for each row."""
        accuracy, likelihood = [], []
        for row, said in zip(rows, predictor.predict([row.input for row in rows]), strict=True):
            label = self._label(row.label)
            accuracy.append(float(said["intent"] == label))
            likelihood.append(log(max(said["probabilities"].get(label, 0.0), 1e-4)))
        return {"accuracy": accuracy, "log_likelihood": likelihood}

    def report(self, artifact: Path, predictor: Predictor, rows: Sequence[Row], folder: Path) -> None:
        """Write `report.md`, `report.json` and pictures."""
        from evergreen.recipes.intent import loading, report
        from evergreen.recipes.intent.predictor import IntentPredictor

        own = predictor if isinstance(predictor, IntentPredictor) else loading.load(artifact)
        report.write(self.options, own, rows, folder)

    def describe(self, value: Json) -> Described:
        """Return how long a text is, which share of its letters is of no Latin script, and its words."""
        from evergreen.recipes.intent import words

        text = value.get("text") if isinstance(value, Mapping) else value
        if not isinstance(text, str):
            return {}
        found = words.words(text)
        letters = [c for c in text if c.isalpha()]
        foreign = sum(c > "\u024f" for c in letters) / len(letters) if letters else 0.0  # after Latin Extended-B
        return {
            "characters": float(len(text)),
            "words": float(len(found)),
            "other scripts": foreign,
            "unknown words": found,
        }

    def describe_output(self, output: Json) -> Described:
        """Return the intent, and how sure it is."""
        return {"intent": output["intent"], "confidence": output["confidence"]}
