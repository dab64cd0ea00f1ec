"""Is live traffic still what the champion learnt from? Inputs, outputs and, where labels come, quality."""

from evergreen.stages.observe.drift.looking import look
from evergreen.stages.observe.drift.report import drift_report

__all__ = ["drift_report", "look"]
