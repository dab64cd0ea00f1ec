"""The machines of the simulation: the product's worker, and beside it the product's `outcome` in place of a child process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from far_folder import Truth, View
from far_plan import Plan
from far_recipe import SHIFTS, Shift
from far_stage import Stage
from greenlet import getcurrent  # type: ignore[import-untyped]

from evergreen.core.ports import Progress, Ticket
from evergreen.job import outcome
from evergreen.job.far.protocol import Job, Machine
from evergreen.job.far.worker import Terms, Worker


class Book:
    """What really happened: whoever trained what, and who broke a promise."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.broken: list[str] = []
        self.trained: dict[str, int] = {}
        self.resumed = 0
        self.begun: dict[str, list[str]] = {}  #: mark -> who began to train it
        self.holders: dict[str, list[str]] = {}  #: run and attempt -> who began to train it

    def accuse(self, what: str) -> None:
        """Write down that a promise was broken."""
        if what not in self.broken:
            self.broken.append(what)

    def go_on(self) -> None:
        """Write down that a training went on from a checkpoint."""
        self.resumed += 1

    def begin(self, ticket: Ticket, who: str) -> None:
        """Write down that a training began."""
        mark, attempt = f"{ticket.run} {ticket.mark}", f"{ticket.run} {ticket.attempt}"
        self.begun.setdefault(mark, []).append(who)
        self.holders.setdefault(attempt, []).append(who)
        if len(self.begun[mark]) > 1:
            self.accuse(f"mark {mark} was trained by {self.begun[mark]}")
        # Two ledgers know nothing of each other's numbers; their nonces tell them apart.
        if len(self.holders[attempt]) > 1 and self.plan.second_app != "copied ledger":
            self.accuse(f"attempt {attempt} was trained by {self.holders[attempt]}")


class Side:
    """A training beside the worker, as the process runner has it: it may outlive the worker's process."""

    def __init__(self, folder: Path, machine: Far) -> None:
        self._folder, self._machine = folder, machine
        self.progress = Progress("waiting")
        self.cancelled = self.draining = False
        self.actor = ""

    def start(self, ticket: Ticket) -> str:
        """Begin, once."""
        machine, mark = self._machine, f"{ticket.run} {ticket.mark}"
        if not self.actor:
            self.actor = f"{machine.name} trains {mark}"
            self.progress = Progress("running", "starting")
            machine.book.begin(ticket, f"{machine.name}.{machine.life}.{machine.boots}")
            machine.trainings.append(self.actor)
            machine.stage.enter(self.actor, lambda: self._train(ticket), after=machine.chance.random() * 3)
        return mark

    def poll(self, handle: str) -> Progress:
        """Say how it goes."""
        return self.progress

    def cancel(self, handle: str) -> None:
        """Ask it to stop; one that does not is killed after a while."""
        self.cancelled = True
        self._machine.stage.enter(f"{self.actor} killer", self._kill, after=10.0)

    def drain(self, handle: str) -> None:
        """Ask it to hand over."""
        self.draining = True

    def _kill(self) -> None:
        if self.progress.state == "running":
            self._machine.stage.crash(self.actor)
            self.progress = Progress("cancelled", error="The training was cancelled.", failure="cancelled")

    def _train(self, ticket: Ticket) -> None:
        machine, plan = self._machine, self._machine.book.plan
        SHIFTS[getcurrent()] = Shift(
            mark=f"{ticket.run} {ticket.mark}",
            machine=machine.name,
            steps=plan.steps,
            step_s=plan.step_s,
            every=plan.every,
            fails=plan.fails,
            trained=machine.book.trained,
            sleep=machine.stage.sleep,
            accuse=machine.book.accuse,
            went_on=machine.book.go_on,
        )
        self.progress = outcome(
            ticket,
            machine.view(),
            self._report,
            self._folder / "work",
            lambda: self.cancelled,
            self._folder / "checkpoints" / ticket.run,
            lambda: self.draining,
            lambda seconds: machine.stage.sleep(seconds, "tries again later"),
        )

    def _report(self, progress: Progress) -> None:
        self.progress = progress


class Far:
    """A machine somewhere: one worker process after the other, on a disk that may be lost."""

    worker_class: type[Worker] = Worker
    view_class: type[View] = View

    def __init__(self, name: str, stage: Stage, truth: Truth, home: Path, chance: Random, book: Book) -> None:
        self.name, self.stage, self._truth, self._home, self.chance, self.book = name, stage, truth, home, chance, book
        self.life = self.boots = 0
        self.trainings: list[str] = []
        self._tasks: list[str] = []
        self._worker: Worker | None = None
        self._clock: Callable[[], float] = lambda: 0.0

    @property
    def disk(self) -> Path:
        """What the machine keeps as long as it lives."""
        return self._home / f"{self.name}.{self.life}"

    @property
    def up(self) -> bool:
        """Say whether its worker runs."""
        actor = self.stage.actors.get(self.name)
        return actor is not None and not actor.body.dead

    def view(self) -> View:
        """Return the folder as this machine has it."""
        return self.view_class(self._truth, self.name, self.stage.turn)

    def boot(self) -> None:
        """Begin as a new process."""
        self.crash()
        self.boots += 1
        stage, born = self.stage, self.stage.now
        rate, offset = self.chance.uniform(0.8, 1.25), self.chance.uniform(0, 1e6)
        self._clock = lambda: offset + (stage.now - born) * rate
        worker = self.worker_class(
            self.view(),
            lambda folder: Side(folder, self),
            name=self.name,
            boot=f"b{self.chance.getrandbits(32):08x}",
            machine=Machine(host=self.name, cpus=2, memory_gb=4.0),
            terms=Terms(poll_s=POLL_S, session_s=self.book.plan.lent_s),
            scratch=self.disk,
            clock=self._clock,
            spawn=self._spawn,
            nonce=lambda: f"{self.chance.getrandbits(48):012x}",
            tell=lambda news: None,
            able=_able,
        )
        self._worker = worker
        stage.enter(self.name, lambda: self._work(worker))

    def _work(self, worker: Worker) -> None:
        while (wait := worker.step()) is not None:
            self.stage.sleep(max(wait, GLANCE_S), "waits for its next step")
        self.stage.enter(f"{self.name} begins", self.boot, after=AWAY_S)  # there will be another session

    def _spawn(self, work: Callable[[], None]) -> None:
        name = f"{self.name} task {len(self._tasks)}"
        self._tasks.append(name)
        self.stage.enter(name, work)

    def drain(self) -> None:
        """Tell the worker that it has to go."""
        if self._worker is not None and self.up:
            worker = self._worker
            self.stage.enter(f"{self.name} signal", worker.leave)

    def crash(self) -> None:
        """Kill the worker's process; what it trained may go on for a while, and write where nobody reads."""
        for actor in (self.name, *self._tasks):
            self.stage.crash(actor)
        self._tasks = []
        if self.chance.random() < 0.5:
            self._kill_trainings()

    def lose(self) -> None:
        """Lose machine, disk, and some of what had not left it."""
        self.crash()
        self._kill_trainings()
        self._truth.power_cut(self.name)
        shutil.rmtree(self.disk, ignore_errors=True)
        self.life += 1

    def pause(self, seconds: float) -> None:
        """Stand still: worker, training and all."""
        for actor in (self.name, *self._tasks, *self.trainings):
            self.stage.pause(actor, seconds)

    def _kill_trainings(self) -> None:
        for actor in self.trainings:
            self.stage.crash(actor)
        self.trainings = []


#: How often each side looks into the folder, how often a holder beats.
POLL_S = 3.0
BEAT_S = 5.0
#: From the end of a session to the next.
AWAY_S = 30.0
#: A machine so slow that it looks at its training once in a second.
GLANCE_S = 1.0


def _able(job: Job) -> str:
    return ""
