"""The number of a line-up: the same in every process that answers from one ledger, and rising with every change."""

from __future__ import annotations

from evergreen.core.loop import Loop
from evergreen.core.records import Event
from evergreen.core.states import IN_SERVICE

_STATES = frozenset(str(state) for state in IN_SERVICE)
#: Lines of history read at once, to begin with.
_PAGE = 200


class Generation:
    """Finds the last line of history that changed who is in service; its seq is the generation."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._after: int | None = None
        self._found = 0

    def read(self) -> int:
        """Return the generation that the ledger is at; 0 before any model came into service."""
        ledger, name = self._loop.ledger, self._loop.name
        if self._after is None:
            self._after, self._found = self._begin()
        for event in ledger.find(Event, name, after=self._after):
            self._after = event.seq
            self._found = event.seq if _tells(event) else self._found
        return self._found

    def _begin(self) -> tuple[int, int]:
        """Look back as far as it takes; return the newest line's seq, and that of the line looked for."""
        limit = _PAGE
        while True:
            lines = self._loop.ledger.find(Event, self._loop.name, newest_first=True, limit=limit)
            found = next((event.seq for event in lines if _tells(event)), 0)
            if found or len(lines) < limit:
                return (lines[0].seq if lines else 0), found
            limit *= 10


def _tells(event: Event) -> bool:
    return event.subject.startswith("model ") and (event.frm in _STATES or event.to in _STATES)
