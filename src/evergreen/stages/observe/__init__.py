"""Stage 8. What is going on, for people and programs; alarms when it should not."""

from evergreen.stages.observe.drift import drift_report
from evergreen.stages.observe.status import history, status
from evergreen.stages.observe.watch import watch

__all__ = ["drift_report", "history", "status", "watch"]
