"""The app of the simulation: the product's stages and its folder runner, on a ledger that outlives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from far_folder import Truth, View
from far_recipe import USE
from far_stage import Stage

from evergreen.backends.runner.folder import FolderOptions, FolderRunner
from evergreen.core.config import LoopConfig
from evergreen.core.errors import EvergreenError, Stale
from evergreen.core.loop import Loop
from evergreen.core.records import Dataset, Run
from evergreen.core.states import RunState
from evergreen.stages import run as stage_run

#: Time between two turns of a loop.
TICK_S = 2.0
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Paper:
    """A ledger as a process has it: every operation is a turn that others may come before; a block is one turn."""

    def __init__(self, ledger: Any, turn: Callable[[str], None], heard: Callable[[str, Any], None]) -> None:
        self._ledger, self._turn, self._heard, self._inside = ledger, turn, heard, False

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._ledger, name)

        def do(*given: Any, **named: Any) -> Any:
            if not self._inside:
                self._turn(f"ledger {name}")
            answer = act(*given, **named)
            if name in ("move", "update", "add"):
                self._heard(name, answer)
            return answer

        return do

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make a block one turn: nobody comes between."""
        if self._inside:
            with self._ledger.together():
                yield
            return
        self._turn("ledger block")
        self._inside = True
        try:
            with self._ledger.together():
                yield
        finally:
            self._inside = False


class Bell:
    """Stands in for `threading.Event`: waiting is time on stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._stage.sleep(seconds, "waits for the next look")

    def set(self) -> None:
        """Ring for nobody: the next look comes by itself."""

    def clear(self) -> None:
        """Have nothing to forget."""


class App:
    """One process after the other on one machine, with one ledger."""

    runner_class: type[FolderRunner] = FolderRunner
    view_class: type[View] = View

    def __init__(
        self,
        name: str,
        stage: Stage,
        truth: Truth,
        ledger: Any,
        home: Path,
        *,
        chance: Random,
        options: FolderOptions,
        loops: int,
        heard: Callable[[str, Any], None],
        slow_s: float = 0.0,
    ) -> None:
        self.name, self._stage, self._truth, self.ledger, self._home = name, stage, truth, ledger, home
        self._chance, self._options, self._loops, self._heard = chance, options, loops, heard
        self._slow_s = slow_s
        self._crew: list[str] = []
        self.up = False
        self.loops: list[Loop] = []
        #: Runs that a person wanted to stop; and those of which that person was told that it is so.
        self.asked: set[str] = set()
        self.cancelled: set[str] = set()

    def boot(self) -> None:
        """Begin as a new process: what only the last one knew is forgotten."""
        self.crash()
        self.up = True
        stage, born = self._stage, self._stage.now
        rate, offset = self._chance.uniform(0.8, 1.25), self._chance.uniform(0, 1e6)

        def clock() -> float:
            return offset + (stage.now - born) * rate

        store = self.view_class(self._truth, self.name, self._turn)
        ledger = Paper(self.ledger, stage.turn, self._heard)
        runner = self.runner_class(
            self._options,
            ledger=ledger,
            store=store,
            store_use={},
            home=self._home,
            state=self._home,
            clock=clock,
            wall=lambda: clock() + 1.7e9,
            nonce=lambda: f"{self._chance.getrandbits(48):012x}",
            spawn=lambda watch: self._spawn(runner, watch),
        )
        self.loops = [
            Loop(
                name=f"l{n}",
                config=LoopConfig(recipe={"use": USE}, retries=1000),
                recipe=None,  # type: ignore[arg-type]
                ledger=ledger,
                store=store,
                runner=runner,
                sources=(),
                home=self._home,
                state=self._home,
                now=lambda: EPOCH + timedelta(seconds=stage.now),
                new_id=lambda: f"{self._chance.getrandbits(64):016x}",
                open_file=None,  # type: ignore[arg-type]
            )
            for n in range(self._loops)
        ]
        self._enter("tick", self._tick)

    def _turn(self, what: str) -> None:
        """Use the folder, in good time or, on an overloaded machine, much later."""
        self._stage.turn(what)
        if self._slow_s:
            self._stage.sleep(self._slow_s * self._chance.uniform(0.5, 1.5), what)

    def crash(self) -> None:
        """End all that the process was doing."""
        for actor in self._crew:
            self._stage.crash(actor)
        self._crew, self.up = [], False

    def pause(self, seconds: float) -> None:
        """Let all that the process does stand still."""
        for actor in self._crew:
            self._stage.pause(actor, seconds)

    def cancel(self, n: int) -> None:
        """Let a person stop a run."""
        if self.up:
            self._enter("person", lambda: self._stop(self.loops[n % self._loops]))

    def _stop(self, loop: Loop) -> None:
        run = self.ledger.last(Run, loop.name)
        self.asked.add(run.id)
        try:
            stopped = stage_run.cancel(loop, by="person", why="test")
        except EvergreenError:
            return  # nothing to stop, or somebody was faster
        if stopped.id == run.id:
            self.cancelled.add(run.id)

    def _tick(self) -> None:
        while True:
            for loop in self.loops:
                for step in (stage_run.start, stage_run.poll):
                    try:
                        step(loop)
                    except Stale:
                        continue  # somebody was faster; the next turn looks again
            self._stage.sleep(TICK_S, "waits for the next tick")

    def _spawn(self, runner: FolderRunner, watch: Any) -> None:
        runner._wakes[watch.handle] = Bell(self._stage)  # type: ignore[assignment]
        self._enter(f"watch {watch.handle}", lambda: runner._attend(watch))

    def _enter(self, what: str, play: Callable[[], None]) -> None:
        name = f"{self.name} {what}"
        if name not in self._crew:
            self._crew.append(name)
        self._stage.enter(name, play)


def queue(ledger: Any, loop: str, run: str, digest: str) -> None:
    """Lay down a run that waits for its runner."""
    data = Dataset(id=f"d-{loop}", loop=loop, version=1, as_of=1, collected=10, train=8, holdout=2, digest=digest, key=f"datasets/{loop}/1")  # fmt: skip
    ledger.add(data, by="dataset", because="test")
    ledger.add(Run(id=run, loop=loop, state=RunState.QUEUED, why="test", dataset=data.id), by="run", because="test")
