"""Stage 4. A training is asked for, queued, handed to a runner and watched until it left a candidate."""

from evergreen.stages.run.ask import ask, cancel
from evergreen.stages.run.training import poll, queue, start

__all__ = ["ask", "cancel", "poll", "queue", "start"]
