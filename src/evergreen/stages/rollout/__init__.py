"""Stage 6. A passed model takes over step by step, or is taken back."""

from evergreen.stages.rollout.experiments import experiment, length, report, stop
from evergreen.stages.rollout.moving import WELCOME, advance, coming, find, promote, rollback, stands
from evergreen.stages.rollout.steps import Step, decide, unfit

__all__ = [
    "WELCOME",
    "Step",
    "advance",
    "coming",
    "decide",
    "experiment",
    "find",
    "length",
    "promote",
    "report",
    "rollback",
    "stands",
    "stop",
    "unfit",
]
