"""Stage 1. Samples come in: posted, or pulled from sources; what cannot be used goes to quarantine. Models, too."""

from evergreen.stages.collect.ingest import admit, pull, pull_from
from evergreen.stages.collect.intake import Intake
from evergreen.stages.collect.outcomes import Given, alike, correction, outcome
from evergreen.stages.collect.uploads import formats, receive, received, why

__all__ = [
    "Given",
    "Intake",
    "admit",
    "alike",
    "correction",
    "formats",
    "outcome",
    "pull",
    "pull_from",
    "receive",
    "received",
    "why",
]
