"""Predictions given lately, by id and by session: what is learnt of them may come before they are written down."""

from __future__ import annotations

from collections import deque
from datetime import datetime

from evergreen.stages.collect import Given


class Recent:
    """Keeps the newest `most`, and all that are not written down yet."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_id: dict[str, Given] = {}
        self._by_session: dict[str, deque[Given]] = {}
        self._order: deque[Given] = deque()

    def add(self, given: Given, unwritten: int) -> None:
        """Keep a prediction; of two by one id the first, as in the ledger. `unwritten`: how many are not there yet."""
        if given.id in self._by_id:
            return
        self._by_id[given.id] = given
        self._order.append(given)
        if given.session is not None:
            self._by_session.setdefault(given.session, deque()).append(given)
        while len(self._order) > self._most + unwritten:
            self._forget(self._order.popleft())

    def get(self, id: str) -> Given | None:
        """Return a prediction."""
        return self._by_id.get(id)

    def newest(self, session: str, *, since: datetime, upto: datetime, but: str = "") -> Given | None:
        """Return the newest of a session between two moments, other than `but`."""
        for given in reversed(self._by_session.get(session, ())):
            if given.at is not None and given.at <= upto and given.id != but:
                return given if given.at >= since else None
        return None

    def _forget(self, given: Given) -> None:
        del self._by_id[given.id]
        if given.session is not None:
            theirs = self._by_session[given.session]
            theirs.popleft()  # it is their oldest, as it was everybody's
            if not theirs:
                del self._by_session[given.session]
