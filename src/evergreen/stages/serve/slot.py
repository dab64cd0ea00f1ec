"""A loaded model that is closed only when its last request is done."""

from __future__ import annotations

import logging
from threading import Lock

from evergreen.core.recipe import Predictor
from evergreen.core.records import Model

log = logging.getLogger(__name__)


class Slot:
    """Counts the requests inside a predictor; `retire` closes it when the count falls to nought."""

    __slots__ = ("_inside", "_lock", "_retired", "model", "predictor")

    def __init__(self, model: Model, predictor: Predictor) -> None:
        self.model = model
        self.predictor = predictor
        self._lock = Lock()
        self._inside = 0
        self._retired = False

    def enter(self) -> None:
        """Keep the predictor open until `leave`."""
        with self._lock:
            self._inside += 1

    def leave(self) -> None:
        """Let go; the last to leave a retired slot closes it."""
        with self._lock:
            self._inside -= 1
            last = self._retired and self._inside == 0
        if last:
            self._close()

    def retire(self) -> None:
        """Close now, or when the last request is done."""
        with self._lock:
            idle = not self._retired and self._inside == 0
            self._retired = True
        if idle:
            self._close()

    def _close(self) -> None:
        try:
            self.predictor.close()
        except Exception:  # the answer that was given last is good all the same
            log.exception("v%d could not be closed", self.model.version)
