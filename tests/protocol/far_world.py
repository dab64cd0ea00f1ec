"""One simulated world from beginning to end: `play(plan)` returns what was broken, or nothing."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from far_app import EPOCH, App, queue
from far_folder import Truth, View
from far_plan import WEATHERS, Fault, Plan
from far_stage import BEGIN, Stage
from far_worker import BEAT_S, POLL_S, Book, Far

from evergreen.backends.ledger.memory import MemoryLedger
from evergreen.backends.runner.folder import FolderOptions, FolderRunner
from evergreen.core.recipe import PluginOptions, Row
from evergreen.core.records import Model, Run
from evergreen.core.states import OPEN_RUNS, RunState
from evergreen.job.digest import digest
from evergreen.job.far.protocol import Ack, Job, Keys, decode
from evergreen.job.far.worker import Worker

#: Turns after which a world without faults must have come to its end.
PATIENCE = 20_000
#: In memory, where there is such a place: the files of a world live for milliseconds.
SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


@dataclass(frozen=True)
class Parts:
    """Whose code plays: the product's, or a mutant's."""

    runner: type[FolderRunner] = FolderRunner
    worker: type[Worker] = Worker
    view: type[View] = View


@dataclass(frozen=True)
class End:
    """How a world ended."""

    broken: tuple[str, ...]
    turns: int
    seconds: float  #: of the world's own time
    attempts: int  #: trainings begun, of all runs
    resumed: int  #: of those, the ones that went on from a checkpoint
    trace: tuple[tuple[float, str, str], ...] = ()


def play(plan: Plan, parts: Parts = Parts(), *, trace: bool = False) -> End:
    """Let a world play out."""
    home = Path(tempfile.mkdtemp(prefix="evergreen-sim-", dir=SCRATCH))
    world = World(plan, parts, home, trace=trace)
    try:
        return world.run()
    finally:
        world.close()
        shutil.rmtree(home, ignore_errors=True)


class World:
    """Everybody, on one stage, around one folder."""

    def __init__(self, plan: Plan, parts: Parts, home: Path, *, trace: bool) -> None:
        self.plan, self.home = plan, home
        self.chance = Random(f"world {plan.seed}")
        self.stage = Stage(Random(f"stage {plan.seed}"), calm=plan.brisk, trace=[] if trace else None)
        weather = WEATHERS[plan.weather]
        self.truth = Truth(Random(f"weather {plan.seed}"), weather, lambda: self.stage.now)
        self.book = Book(plan)
        self._over_since: float | None = None
        #: Of each app's runs: the attempt, and the state.
        self.attempt: dict[tuple[str, str], int] = {}
        self.state: dict[tuple[str, str], RunState] = {}
        self.runs = [f"r{n}" for n in range(plan.loops)]
        lease_s = 3.3 * (BEAT_S + POLL_S + weather.staleness_s)
        options = FolderOptions(
            beat=timedelta(seconds=BEAT_S), poll=timedelta(seconds=POLL_S), lease=timedelta(seconds=lease_s), mode=plan.mode
        )  # fmt: skip
        self.apps: list[App] = []
        ledger = self._ledger("ledger")
        for n in range(plan.loops):
            self._lay_down(ledger, n)
        self._make_app("app0", ledger, options, parts)
        if plan.second_app == "same ledger":
            self._make_app("app1", ledger, options, parts)
        elif plan.second_app == "copied ledger":
            self._make_app("app1", self._copy(ledger), options, parts)
        self.far = [
            Far(f"w{n}", self.stage, self.truth, home / "far", Random(f"w{n} {plan.seed}"), self.book)
            for n in range(plan.workers)
        ]
        for far in self.far:
            far.worker_class = parts.worker
            far.view_class = parts.view
        self.actors: list[Any] = [*self.apps, *self.far]

    def run(self) -> End:
        """Let faults happen, then let all come to an end."""
        stage = self.stage
        for actor in self.actors:
            stage.enter(f"{actor.name} begins", actor.boot, after=self.chance.random() * 20)
        for n, fault in enumerate(self.plan.faults):
            stage.enter(f"fault {n}", self._doing(fault), after=fault.at)
        last = max((fault.at + fault.lasts for fault in self.plan.faults), default=0.0) + stage.now
        # What is over stays under watch for a while: a zombie may come back.
        stage.play(lambda: bool(self.book.broken) or self._over_for(40.0) or stage.now > last, PATIENCE)
        if not self.book.broken:
            self._settle()
            ended = stage.play(lambda: bool(self.book.broken) or self._over(), PATIENCE)
            # Two ledgers of one run cannot both have their way in one folder; they must do no harm.
            if not ended and self.plan.second_app != "copied ledger":
                self.book.accuse(f"it does not come to an end: {self._open()}")
        if not self.book.broken:
            self._audit()
        attempts = sum(len(who) for who in self.book.begun.values())
        return End(
            tuple(self.book.broken),
            stage.turns,
            stage.now - BEGIN,
            attempts,
            self.book.resumed,
            tuple(stage.trace or ()),
        )

    def close(self) -> None:
        """Let go of everybody."""
        for name in list(self.stage.actors):
            self.stage.crash(name)
        for app in self.apps:
            app.ledger.close()

    # --- Laying it out --------------------------------------------------------------------------------------------

    def _ledger(self, name: str) -> Any:
        now = lambda: EPOCH + timedelta(seconds=self.stage.now)  # noqa: E731
        if self.plan.ledger == "memory":
            return MemoryLedger(PluginOptions(), home=self.home, state=self.home, now=now)
        from evergreen.backends.ledger.sql import Options, SqlLedger

        return SqlLedger(Options(), home=self.home, state=self.home / name, now=now)

    def _copy(self, ledger: Any) -> Any:
        """Return what a backup put into service beside the original would be."""
        if self.plan.ledger == "memory":
            lock, ledger._lock = ledger._lock, None
            twin = copy.deepcopy(ledger, {id(self.stage): self.stage})
            ledger._lock = twin._lock = lock
            return twin
        shutil.copytree(self.home / "ledger", self.home / "copy")
        return self._ledger("copy")

    def _lay_down(self, ledger: Any, n: int) -> None:
        folder = self.home / f"data{n}"
        for side in ("train", "holdout"):
            (folder / side).mkdir(parents=True)
            (folder / side / f"{side}.jsonl").write_bytes(msgspec.json.encode(Row(f"{side}-1", {}, "a")) + b"\n")
        fair, self.truth.settled = self.truth.settled, True
        View(self.truth, "app0", lambda _: None).put(f"datasets/l{n}/1", folder)
        self.truth.settled = fair
        queue(ledger, f"l{n}", self.runs[n], digest(folder))

    def _make_app(self, name: str, ledger: Any, options: FolderOptions, parts: Parts) -> None:
        app = App(
            name,
            self.stage,
            self.truth,
            ledger,
            self.home / name,
            chance=Random(f"{name} {self.plan.seed}"),
            options=options,
            loops=self.plan.loops,
            slow_s=self.plan.app_s,
            heard=lambda _, record: self._heard(app, record),
        )
        app.runner_class, app.view_class = parts.runner, parts.view
        self.apps.append(app)
        for run in self.runs:
            self.state[name, run] = RunState.QUEUED

    # --- What goes wrong ------------------------------------------------------------------------------------------

    def _doing(self, fault: Fault) -> Callable[[], None]:
        who: Any = self.apps if fault.kind.startswith("app") or fault.kind == "cancel" else self.far
        whom = who[fault.whom % len(who)]

        def happen() -> None:
            if fault.kind.endswith("pause"):
                whom.pause(fault.lasts)
            elif fault.kind.endswith("cut off"):
                self.truth.cut_off.setdefault(whom.name, self.stage.now)
                self.stage.sleep(fault.lasts, f"{whom.name} is cut off")
                self.truth.reconnect(whom.name)
            elif fault.kind == "cancel":
                whom.cancel(fault.whom)
            elif fault.kind == "drain":
                whom.drain()  # the machine sees to its next session itself
            else:
                whom.lose() if fault.kind == "worker loss" else whom.crash()
                self.stage.sleep(fault.lasts, f"{whom.name} is away")
                whom.boot()

        return happen

    def _settle(self) -> None:
        """Fair weather: everybody is there, everything is seen, every step is quick."""
        self.truth.settle()
        self.stage.calm = True
        for name in [n for n in self.stage.actors if n.startswith("fault") or n.endswith(" begins")]:
            self.stage.crash(name)
        for actor in self.actors:
            if not actor.up:
                actor.boot()
            actor.pause(-1e9)  # whoever stands still goes on now

    # --- What must hold -------------------------------------------------------------------------------------------

    def _heard(self, app: App, record: Any) -> None:
        """See every change of a ledger as it is made."""
        if isinstance(record, Run):
            for one in self.apps:
                if one.ledger is app.ledger:
                    known = self.attempt.get((one.name, record.id), 0)
                    if record.attempt < known:
                        self.book.accuse(f"attempts of {record.id} went back from {known} to {record.attempt}")
                    self.attempt[one.name, record.id] = record.attempt
                    self.state[one.name, record.id] = record.state
        elif isinstance(record, Model):
            self._judge(app, record)

    def _judge(self, app: App, model: Model) -> None:
        """A model was accepted: is it whole, and by whom it should be?"""
        said = app.ledger.recall("folder", model.run)
        row = msgspec.json.decode(said) if said else {}
        files = {
            name: self.truth.arrived(f"{model.key}@/{name}") for name in ("manifest.json", "answer.json", "weights.txt")
        }
        if None in files.values():
            self.book.accuse(f"a model was accepted that is not whole: {model.key} lacks {[n for n, d in files.items() if d is None]}")  # fmt: skip
            return
        answer = json.loads(files["answer.json"] or b"")
        mark = f"{model.run} {row.get('mark')}"
        if answer["mark"] != mark:
            self.book.accuse(f"a model of {answer['mark']} was accepted for {mark}")
        if answer["machine"] != row.get("worker"):
            self.book.accuse(f"a model by {answer['machine']} was accepted from {row.get('worker')}")
        if (files["weights.txt"] or b"").decode() != answer["state"]:
            self.book.accuse(f"a torn model was accepted for {mark}")
        if self.book.trained.get(answer["state"]) != self.plan.steps:
            self.book.accuse(f"the model of {mark} claims steps that nobody trained")
        if model.run in app.cancelled:
            self.book.accuse(f"{model.run} was cancelled and its model was accepted later")

    def _audit(self) -> None:
        """When all is over: one outcome each, one word of it in the folder."""
        for app in self.apps:
            for n, run in enumerate(self.runs):
                ended = app.ledger.get(Run, run)
                if ended.state in OPEN_RUNS:
                    continue
                models = [m for m in app.ledger.find(Model, f"l{n}") if m.run == run]
                if ended.state is RunState.FAILED and not self.plan.fails:
                    self.book.accuse(f"{run} failed, though nobody was at fault: {ended.failure}: {ended.error}")
                if ended.state is RunState.CANCELLED and not any(run in one.asked for one in self.apps):
                    self.book.accuse(f"{run} was cancelled by nobody: {ended.error}")
                if len(models) != (ended.state is RunState.SUCCEEDED):
                    self.book.accuse(f"{run} ended as {ended.state} with {len(models)} models")
        for run in self.runs:
            said: dict[str, set[bytes]] = {}
            for version in self.truth.versions.get(Keys(run).ack, ()):
                if version.data is not None and (ack := decode(version.data, Ack)) is not None:
                    said.setdefault(ack.opening, set()).add(version.data)
            for opening, words in said.items():
                if len(words) > 1:
                    self.book.accuse(f"two different words on how {run} ({opening}) ended: {sorted(words)}")

    def _over(self) -> bool:
        return not any(state in OPEN_RUNS for state in self.state.values()) and not self._open()

    def _over_for(self, seconds: float) -> bool:
        if not self._over():
            self._over_since = None
        elif self._over_since is None:
            self._over_since = self.stage.now
        return self._over_since is not None and self.stage.now - self._over_since > seconds

    def _open(self) -> list[str]:
        """List runs that are not over: in a ledger, or in the folder for want of a word."""
        found = []
        for app in self.apps:
            for run in self.runs:
                if (state := self.state[app.name, run]) in OPEN_RUNS:
                    found.append(f"{run} is {state} in {app.name}")
        return found or [f"{run} is over, and the folder does not say so" for run in self.runs if not self._said(run)]

    def _said(self, run: str) -> bool:
        """Say whether workers can see that a run is over, if they could ever see that there was one."""
        job, ack = self.truth.newest(Keys(run).job), self.truth.newest(Keys(run).ack)
        if job is None or self.plan.second_app == "copied ledger":
            return True
        there, word = decode(job, Job), decode(ack or b"", Ack)
        return there is not None and word is not None and word.closes(there)
