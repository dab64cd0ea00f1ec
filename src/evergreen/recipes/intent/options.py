"""The settings of the intent recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from evergreen.core.recipe import PluginOptions

ModelKind = Literal["linear", "random_forest"]


class IntentOptions(PluginOptions):
    """How texts are read, learned from and answered."""

    model: Literal["auto", "linear", "random_forest"] = "auto"
    """Kind of model. "random_forest" is TF-IDF over words and pairs of words (5,000 at most) with 100 trees; "linear" is
    support vectors over words, pairs of words and characters inside words; "auto" tries them by cross-validation, the
    forest only up to 5,000 rows. A forest of 150 intents takes 440 MB while it serves, a linear model 90."""
    trees: int = Field(100, ge=1, le=2000)
    """Trees of a forest."""
    max_features: int = Field(12_000, ge=100, le=100_000)
    """Most names a linear model counts; those with the largest weights are kept. A forest has at most 5,000."""
    min_samples: int = Field(50, ge=2)
    """Fewest labelled samples to train on."""
    max_length: int = Field(2000, ge=1, le=100_000)
    """Longest text allowed, in characters."""
    out_of_scope_label: str = Field("out_of_scope", min_length=1)
    """The label of texts that mean none of the intents, in rows and in answers; "oos" in rows is read as it."""
    refuse: float = Field(0.02, ge=0, lt=1)
    """Share of texts with a known intent that may be answered as out of scope, where too few rows are labelled so to
    weigh both mistakes against each other; 0 there: nothing is out of scope."""
    ensemble: Literal["selection", "soft_vote", "none"] = "selection"
    """What becomes of models that devices sent in: "selection" gives votes to those that help on rows kept back,
    "soft_vote" gives the base two votes and each of them one, "none" leaves them out."""
    coreml: Literal["auto"] | bool = "auto"
    """Write a CoreML file for phones into `exports/`; "auto" leaves it out, and says so, where a forest is too large for
    a phone; true makes that an error."""

    @model_validator(mode="after")
    def _plain(self) -> IntentOptions:
        if self.out_of_scope_label != self.out_of_scope_label.strip():
            raise ValueError("out_of_scope_label begins or ends with a space")
        return self
