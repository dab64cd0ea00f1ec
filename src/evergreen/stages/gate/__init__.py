"""Stage 5. Candidate against champion on the same held-out rows: promote, reject, or say that it cannot tell."""

from evergreen.stages.gate.judge import judge

__all__ = ["judge"]
