"""Trains here and now, inside `start`: for tests, for docs, and for models that take a second."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evergreen.core.ports import Ledger, Progress, Store, Ticket
from evergreen.core.recipe import PluginOptions
from evergreen.job import outcome
from evergreen.job.folder import Beat, RunFolder


class InlineRunner:
    """Does the work in `start`; the result stays in the state folder, so that a new instance knows it."""

    Options = PluginOptions

    def __init__(
        self,
        options: PluginOptions,  # noqa: ARG002  what every runner is given and this one has no use for
        *,
        ledger: Ledger,  # noqa: ARG002
        store: Store,
        store_use: Mapping[str, Any],  # noqa: ARG002
        home: Path,  # noqa: ARG002
        state: Path,
    ) -> None:
        self._store = store
        self._runs = state / "runs"

    def start(self, ticket: Ticket) -> str:
        """Train, unless this attempt was begun before; return when it has ended."""
        handle = RunFolder.name(ticket)
        folder = RunFolder.below(self._runs, handle)
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = folder.take()
        if lock is None:
            return handle
        try:
            if folder.begin():
                checkpoints = folder.checkpoints(ticket.run)
                folder.end(
                    outcome(ticket, self._store, Beat(folder), folder.work, folder.cancelled.exists, checkpoints)
                )
        finally:
            os.close(lock)
        return handle

    def poll(self, handle: str) -> Progress:
        """Say how it ended, or, to another thread, how far it is."""
        folder = RunFolder.below(self._runs, handle)
        if result := folder.ended():
            return result
        if folder.held():
            return folder.pulse() or Progress("running", "starting")
        return folder.ended() or Progress("lost", error="The process that trained is gone.")

    def cancel(self, handle: str) -> None:
        """Ask for a stop; heeded when the recipe next reports how far it is."""
        folder = RunFolder.below(self._runs, handle)
        if folder.held():
            folder.cancelled.touch()
