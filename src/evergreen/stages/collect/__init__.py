"""Stage 1. Samples come in: posted, or pulled from sources; what cannot be used goes to quarantine. Models, too."""

from evergreen.stages.collect.ingest import admit, pull, pull_from
from evergreen.stages.collect.intake import Intake
from evergreen.stages.collect.uploads import FORMATS, receive, received

__all__ = ["FORMATS", "Intake", "admit", "pull", "pull_from", "receive", "received"]
