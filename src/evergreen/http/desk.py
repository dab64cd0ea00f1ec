"""Where one loop answers predictions, and where what was answered is written down without anybody waiting for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

from evergreen.core.errors import EvergreenError, Overloaded, PredictionFailed, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Tally
from evergreen.core.records import Json, Model, Sample
from evergreen.http.metrics import Meter
from evergreen.stages.collect import Intake
from evergreen.stages.serve import Answer, Live

log = logging.getLogger("evergreen.http")

#: Predictions are handed to the writer in batches: after this many seconds, or this many of them.
_PAUSE, _BATCH = 0.01, 100
#: Exposures are written down after this many seconds; this many units are known to have been.
_EXPOSE, _MET = 0.25, 200_000
#: Predictions kept at hand for feedback, and questions to shadows that may wait.
_RECENT, _SHADOWS = 5_000, 64
#: Calls that may wait for a thread; more are sent away at once rather than kept waiting for long.
_CROWD = 512


#: Answers or what went wrong, each with its milliseconds.
Timed = list[tuple[Answer | EvergreenError, float]]


class Given(NamedTuple):
    """A prediction that was given."""

    id: str
    value: Json
    output: Json
    model: str  #: id of the model that answered
    subject: str | None = None


class Desk:
    """Answers, counts and remembers for one loop. Everything but `answer` runs on the event loop's thread."""

    def __init__(self, loop: Loop, live: Live, intake: Intake, pool: Executor, aside: Executor) -> None:
        self.loop = loop
        self.live = live
        self.meter = Meter()
        #: Answers take so little time that a thread would cost more.
        self.quick = loop.recipe.quick
        self._intake = intake
        self._pool = pool
        self._aside = aside  # for shadows: they must not keep those waiting who are heard
        self._log = loop.config.serve.log == "all"
        self._consent = loop.config.collect.consent
        self._given: list[Given] = []
        self._traffic: dict[str, list[float]] = {}  # model id -> [answered, failed, ms, ms², compared, agreed]
        self._scheduled = False
        self._recent: dict[str, Given] = {}
        self._order: deque[str] = deque()
        self._asking = 0
        self._experiment = ""
        self._met: set[str] = set()  # units that were exposed already
        self._exposed: dict[str, str] = {}  # unit -> arm, to be written down
        self._exposing = False
        self._inside = 0
        self._losing = False

    async def predict(
        self,
        values: Sequence[Json],
        ids: Sequence[str],
        *,
        unit: str | None = None,
        subject: str | None = None,
        consent: bool = False,
    ) -> list[Answer]:
        """Answer every input and write it down; `unit` (or each id) decides which variant answers.

        Raises `NoModel`, `InvalidInput`. Answers are stored only where consent is not asked for, or was given.
        """
        if self.quick and len(values) == 1:
            timed = self._timed(values, ids, unit)
        else:
            timed = await self._in_thread(values, ids, unit)
        answers = []
        for i, (result, _) in enumerate(timed):
            if not isinstance(result, Answer):
                self._failed(result)
                raise result if len(values) == 1 else at_place(result, i)
            answers.append(result)
        for id, answer, (_, ms) in zip(ids, answers, timed, strict=True):
            self._note(Given(id, answer.input, answer.output, answer.model.id, subject), answer, ms, consent)
            if answer.exposed is not None:
                self._meet(*answer.exposed, unit or id)
        return answers

    async def _in_thread(self, values: Sequence[Json], ids: Sequence[str], unit: str | None) -> Timed:
        if self._inside >= _CROWD:
            raise Overloaded(f"{self._inside} calls wait for an answer of {self.loop.name} already")
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, values, ids, unit)
        finally:
            self._inside -= 1

    def recall(self, id: str) -> Given | None:
        """Return a prediction given lately."""
        return self._recent.get(id)

    def judged(self, model: str, *, right: bool) -> None:
        """Count a label that came for an answer of `model`."""
        self._intake.put(self.loop.name, (), {model: Tally(judged=1, right=int(right))})

    def flush(self) -> None:
        """Hand what was given to the writer."""
        self._scheduled = False
        given, self._given = self._given, []
        counted, self._traffic = self._traffic, {}
        if not given and not counted:
            return
        traffic = {
            id: Tally(int(n), int(bad), latency_ms=ms, latency_sq=sq, compared=int(both), agreed=int(same))
            for id, (n, bad, ms, sq, both, same) in counted.items()
        }
        name = self.loop.name
        samples = [
            Sample(
                id=g.id,
                loop=name,
                input=g.value,
                output=g.output,
                origin="predict",
                subject=g.subject,
                model=g.model,
            )
            for g in given
        ]
        try:
            self._intake.put(name, samples, traffic, partial(self._written, len(samples)))
        except Unavailable as e:
            self._written(len(samples), None, e)

    def _written(self, n: int, _: Sequence[bool] | None, error: Exception | None) -> None:
        """Count predictions that could not be written down; answering goes on. Called on the writer's thread too."""
        if error is not None:
            self.meter.dropped += n
            if not self._losing:
                log.error("predictions of %s cannot be written down: %s", self.loop.name, error)
        elif self._losing:
            log.warning("predictions of %s are written down again", self.loop.name)
        self._losing = error is not None

    def _timed(self, values: Sequence[Json], ids: Sequence[str], unit: str | None) -> Timed:
        """Answer in order until one fails, with the time each took in milliseconds."""
        timed: Timed = []
        answer = self.live.answer
        clock = time.perf_counter
        for value, id in zip(values, ids, strict=True):
            start = clock()
            try:
                timed.append((answer(value, unit or id), (clock() - start) * 1000))
            except EvergreenError as e:
                timed.append((e, 0.0))
                break
        return timed

    def _note(self, given: Given, answer: Answer, ms: float, consent: bool) -> None:
        model = answer.model
        tally = self._traffic.get(model.id)
        if tally is None:
            tally = self._traffic[model.id] = _nothing()
        tally[0] += 1
        tally[2] += ms
        tally[3] += ms * ms
        self.meter.answers[model.version, model.state.value] += 1
        if answer.failed:
            self._blame(answer.failed)
        if self._log and (consent or not self._consent):
            self._given.append(given)
            self._recent[given.id] = given
            self._order.append(given.id)
            if len(self._order) > _RECENT:
                self._recent.pop(self._order.popleft(), None)
        if answer.shadows and self._asking < _SHADOWS:
            self._asking += 1
            asked = asyncio.get_running_loop().run_in_executor(self._aside, self._ask, answer.shadows, given)
            asked.add_done_callback(self._asked)
        self._schedule()

    def _failed(self, error: EvergreenError) -> None:
        if isinstance(error, PredictionFailed):
            self._blame(error.failed)
            self._schedule()

    def _blame(self, models: Sequence[str]) -> None:
        for id in models:
            self._traffic.setdefault(id, _nothing())[1] += 1

    def _schedule(self) -> None:
        if len(self._given) >= _BATCH:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(_PAUSE, self.flush)

    def _ask(self, shadows: Sequence[Model], given: Given) -> list[tuple[str, list[float]]]:
        """Ask models whose answers nobody hears; say of each whether it could answer, how long it took, and whether
        it decides as the answer that was sent."""
        heard: list[tuple[str, list[float]]] = []
        decision = self.loop.recipe.decision
        for model in shadows:
            start = time.perf_counter()
            try:
                output = self.live.ask(model, given.value)
                ms = (time.perf_counter() - start) * 1000
                agreed = bool(decision(output) == decision(given.output))
            except Unavailable:
                continue  # it went out of service meanwhile
            except Exception:  # noqa: BLE001 - counted against the model
                heard.append((model.id, [0, 1, 0.0, 0.0, 0, 0]))
            else:
                heard.append((model.id, [1, 0, ms, ms * ms, 1, int(agreed)]))
        return heard

    def _asked(self, done: asyncio.Future[list[tuple[str, list[float]]]]) -> None:
        self._asking -= 1
        if done.cancelled():
            return
        for id, more in done.result():
            tally = self._traffic.setdefault(id, _nothing())
            for i, figure in enumerate(more):
                tally[i] += figure
        self._schedule()

    def _meet(self, experiment: str, arm: str, unit: str) -> None:
        """Have it written down, once, which arm of an experiment a unit met. The unit itself is not written."""
        if experiment != self._experiment:
            self.expose()
            self._experiment, self._met = experiment, set()
        unit = blake2b(f"{experiment}\0{unit}".encode(), digest_size=12).hexdigest()
        if unit in self._met:
            return
        if len(self._met) >= _MET:  # the ledger keeps what a unit met first
            self._met.clear()
        self._met.add(unit)
        self._exposed[unit] = arm
        if not self._exposing:
            self._exposing = True
            asyncio.get_running_loop().call_later(_EXPOSE, self.expose)

    def expose(self) -> None:
        """Hand exposures over to be written."""
        self._exposing = False
        units, self._exposed = self._exposed, {}
        if units:
            self._aside.submit(self._write_exposures, self._experiment, units)

    def _write_exposures(self, experiment: str, units: dict[str, str]) -> None:
        try:
            self.loop.ledger.expose(experiment, units)
        except Exception:
            log.exception(
                "%d exposures of %s could not be written down; they are when the units come again",
                len(units),
                experiment,
            )
            self._met -= units.keys()


def _nothing() -> list[float]:
    return [0, 0, 0.0, 0.0, 0, 0]


def at_place(error: EvergreenError, i: int) -> EvergreenError:
    """Say which of several things sent together an error is about."""
    error.field = f"[{i}].{error.field}" if error.field else f"[{i}]"
    return error
