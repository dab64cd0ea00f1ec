"""The settings of the tabular recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from evergreen.core.recipe import PluginOptions

ModelKind = Literal["random_forest", "svm", "logistic", "gradient_boosting"]
Label = StrictBool | StrictInt | StrictFloat | StrictStr


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SequenceOptions(_Part):
    """A list of points within the input, such as the last steps of a camera."""

    column: str
    """Member of the input that holds the list; it may be absent, which reads as no points."""
    length: int = Field(10, ge=1, le=1000)
    """Most points allowed; a shorter list is filled up with zeros at its end."""
    fields: tuple[str, ...] = Field(min_length=1)
    """Numbers of each point, in order: length × fields further features."""


class OutcomeOptions(_Part):
    """What came of a logged decision: one after which the frame rate fell is a poor example."""

    column: str
    """Measurement after the decision, for example `fpsAfterDecision`."""
    before: str | None = None
    """The same measurement before the decision; a device below `target` already is only asked to hold what it had."""
    target: float = Field(60.0, gt=0)
    """What is good enough; more than this is no better."""
    good: float = Field(0.95, gt=0)
    """Share of what was to be held from which an example counts in full."""
    bad: float = Field(0.6, ge=0)
    """Share at and below which an example counts `floor` only."""
    floor: float = Field(0.05, ge=0, le=1)
    """Weight of an example with a bad outcome."""
    unknown: float = Field(0.5, ge=0, le=1)
    """Weight of an example whose outcome cell is empty. Where the log has no such column every example counts in full."""

    @model_validator(mode="after")
    def _order(self) -> OutcomeOptions:
        if self.bad >= self.good:
            raise ValueError("bad must be less than good")
        return self


class TabularOptions(PluginOptions):
    """What the columns are called and how to learn from them."""

    target: str
    """Column of flat rows that holds the label."""
    features: tuple[str, ...] | None = Field(None, min_length=1)
    """Columns to learn from; not set: all numbers and categories but target, outcome, group and `ignore`."""
    categorical: tuple[str, ...] = ()
    """Features that are categories, not numbers; without `features`, columns of text are found by themselves."""
    ignore: tuple[str, ...] = ()
    """Columns never learned from, such as row ids and the time."""
    ranges: dict[str, tuple[float, float]] = Field({})
    """Lowest and highest value allowed of a numeric feature; anything outside is refused."""
    required: tuple[str, ...] = ()
    """Features that must be there; others may be missing: absent, null, "" or "?"."""
    classes: tuple[Label, ...] | None = Field(None, min_length=2)
    """Labels allowed; not set: whatever comes."""
    model: Literal["random_forest", "svm", "logistic", "gradient_boosting", "auto"] = "random_forest"
    """Kind of model; "auto" tries all four by cross-validation and keeps the best."""
    trees: int = Field(100, ge=1, le=10_000)
    """Trees of a forest, rounds of boosting."""
    class_weight: Literal["balanced", "none"] = "none"
    """"balanced" makes rare classes count as much as frequent ones. That costs accuracy and bends probabilities
    towards classes that are rare in use, so it is only for loops whose gate looks at rare classes."""
    calibrate: bool = True
    """Fit a temperature on rows kept back, so that a confidence of 0.8 is right 80 % of the time; decisions stay as they are."""
    recency: Literal["none", "auto"] | Annotated[float, Field(gt=0)] = "none"
    """Let older rows count less: half-life in rows, or "auto" to choose one, or none, by cross-validation in time.
    "auto" takes three to four times as long. Measured with forests, it gained 6 points of accuracy where the right
    answers themselves changed, nothing without a drift, and lost about 1 where only the inputs changed or the holdout
    reached far ahead: so it is not the default."""
    sequence: SequenceOptions | None = None
    """A list of points within the input."""
    outcome: OutcomeOptions | None = None
    """Weigh examples by what came of them."""
    group: str | None = None
    """Column whose rows must not be torn apart by the split, such as the session or the device."""

    @model_validator(mode="after")
    def _consistent(self) -> TabularOptions:
        if self.features is not None:
            known = set(self.features)
            for key, names in (("categorical", self.categorical), ("ranges", self.ranges), ("required", self.required)):
                if lost := [name for name in names if name not in known]:
                    raise ValueError(f"{key} names {lost[0]!r}, which is not in features")
            if self.target in known:
                raise ValueError(f"features has the target {self.target!r}")
            if len(known) < len(self.features):
                raise ValueError("features names a column twice")
        for name, (low, high) in self.ranges.items():
            if not low <= high:
                raise ValueError(f"ranges.{name}: the lowest value is above the highest")
            if name in self.categorical:
                raise ValueError(f"ranges.{name}: a category has no range")
        return self

    @property
    def never(self) -> frozenset[str]:
        """Columns that are no features whatever they hold."""
        names = {self.target, *self.ignore}
        if self.group:
            names.add(self.group)
        if self.outcome:
            names.add(self.outcome.column)
        if self.sequence:
            names.add(self.sequence.column)
        return frozenset(names)
