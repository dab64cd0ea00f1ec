"""A level-of-detail decision inside a 3-D viewer, learnt from the log of past decisions."""

from evergreen.templates.parima.door import Options, ParimaDoor

__all__ = ["Options", "ParimaDoor"]
