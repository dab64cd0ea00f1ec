"""Waiting for the writer: who posted a sample is answered when it is safe on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from evergreen.core.records import Sample
from evergreen.stages.collect import Intake

Fresh = asyncio.Future[Sequence[bool]]


class Receipts:
    """Brings word from the writer's thread to the event loop: one wake-up for a whole transaction."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._settled: deque[tuple[Fresh, Sequence[bool] | None, Exception | None]] = deque()
        self._woken = False

    async def store(self, loop_name: str, samples: Sequence[Sample]) -> Sequence[bool]:
        """Store samples durably; say of each whether it was new. Raises `Overloaded`."""
        aio = asyncio.get_running_loop()
        future: Fresh = aio.create_future()
        self._intake.put(loop_name, samples, done=partial(self._done, aio, future))
        return await future

    def _done(
        self, aio: asyncio.AbstractEventLoop, future: Fresh, fresh: Sequence[bool] | None, error: Exception | None
    ) -> None:
        """Note a result; called on the writer's thread."""
        self._settled.append((future, fresh, error))
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the event loop has ended; nobody waits any more, the writer goes on
                aio.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._woken = False
        while self._settled:
            future, fresh, error = self._settled.popleft()
            if future.done():  # the caller has gone
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(fresh or ())
