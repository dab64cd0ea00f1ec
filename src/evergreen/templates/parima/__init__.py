"""A level-of-detail decision inside a 3-D viewer, learnt from the log of past decisions."""

from evergreen.templates.parima.door import DoorOptions, ParimaDoor

__all__ = ["DoorOptions", "ParimaDoor"]
