"""Server-sent events: a mark that changes whenever a page would, so that the browser fetches it again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

from evergreen.core.errors import Overloaded
from evergreen.core.loop import Loop
from evergreen.http.pages import reading

#: Browsers that may listen at once.
CLIENTS = 64
#: Seconds between two looks, between two signs of life, and until a stream ends (the browser comes back by itself).
LOOK, BEAT, END = 1.0, 15.0, 600.0


class Pulse:
    """The marks of pages; looked up at most once a second, however many browsers listen."""

    def __init__(self, closing: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._closing = closing
        self._clock = clock
        self._marks: dict[str, tuple[float, str]] = {}
        self._looking = asyncio.Lock()
        self.clients = 0

    async def mark(self, name: str, loops: Sequence[Loop]) -> str:
        """Return the mark of the page `name`, which shows `loops`."""
        async with self._looking:
            at, mark = self._marks.get(name, (float("-inf"), ""))
            if self._clock() - at >= LOOK:
                mark = await asyncio.to_thread(reading.pulse, loops)
                self._marks[name] = (self._clock(), mark)
        return mark

    def listen(self, name: str, loops: Sequence[Loop]) -> AsyncIterator[str]:
        """Return a stream of events. Raises `Overloaded` when too many listen already."""
        if self.clients >= CLIENTS:
            raise Overloaded(f"{CLIENTS} pages are listening already", hint="Load the page again to see what is new.")
        return self._stream(name, loops)

    async def _stream(self, name: str, loops: Sequence[Loop]) -> AsyncIterator[str]:
        self.clients += 1
        try:
            start = spoke = self._clock()
            told = ""
            yield "retry: 3000\n\n"
            while not self._closing.is_set() and self._clock() - start < END:
                mark = await self.mark(name, loops)
                if mark != told:
                    told, spoke = mark, self._clock()
                    yield f"data: {json.dumps({'mark': mark})}\n\n"
                elif self._clock() - spoke >= BEAT:
                    spoke = self._clock()
                    yield ": still here\n\n"
                await asyncio.sleep(LOOK)
        finally:
            self.clients -= 1
