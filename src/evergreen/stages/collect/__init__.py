"""Stage 1. Samples come in: posted, or pulled from sources; what cannot be used goes to quarantine."""

from evergreen.stages.collect.ingest import admit, pull, pull_from
from evergreen.stages.collect.intake import Intake

__all__ = ["Intake", "admit", "pull", "pull_from"]
