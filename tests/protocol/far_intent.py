"""The intent recipe, trained slowly enough to be interrupted: `{"use": "far_intent:PatientIntent"}`. For tests."""

from __future__ import annotations

from collections.abc import Mapping

from far_kit import Stepper, StepperOptions
from pydantic import Field

from evergreen.core.recipe import Job
from evergreen.core.records import Json
from evergreen.recipes.intent import Intent, IntentOptions


class PatientOptions(IntentOptions):
    """How slowly."""

    steps: int = Field(40, ge=1)
    """Steps to take before the model is made."""
    log: str
    """A file to which every step adds a line."""
    gate: str
    """A file that says how far each machine may go."""


class PatientIntent(Intent):
    """Takes steps with checkpoints as a `Stepper` does, then trains as the recipe does."""

    Options = PatientOptions
    options: PatientOptions

    def train(self, job: Job) -> Mapping[str, Json]:
        """Go on from the newest checkpoint."""
        steps = Stepper(StepperOptions(steps=self.options.steps, every=5, log=self.options.log, gate=self.options.gate))
        taken = steps.take(job)
        return {**super().train(job), "steps": taken}
