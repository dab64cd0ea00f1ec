"""Telling others what happened: the history is the outbox, each subscriber has a place in it."""

from evergreen.outbox.book import Standing, find, replay, standing, trial
from evergreen.outbox.postman import Outbox

__all__ = ["Outbox", "Standing", "find", "replay", "standing", "trial"]
