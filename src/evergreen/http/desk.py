"""Where one loop answers predictions, and where what was answered is written down without anybody waiting for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import datetime, timedelta
from functools import partial
from hashlib import blake2b

from evergreen.core.errors import EvergreenError, Overloaded, PredictionFailed, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Tally
from evergreen.core.records import Json, Model, Sample
from evergreen.http.figures import Meter
from evergreen.http.recent import Recent
from evergreen.stages.collect import Given, Intake, alike, correction
from evergreen.stages.serve import Answer, Live

log = logging.getLogger("evergreen.http")

#: Predictions are handed to the writer in batches: after this many seconds, or this many of them.
_PAUSE, _BATCH = 0.025, 500
#: Exposures are written down after this many seconds; this many units are known to have been.
_EXPOSE, _MET = 0.25, 200_000
#: Predictions kept at hand for feedback, and questions to shadows that may wait.
_RECENT, _SHADOWS = 5_000, 64
#: Of a model: answered, failed, milliseconds, their squares, compared, agreed.
_NOTHING = (0, 0, 0.0, 0.0, 0, 0)
_NONE = timedelta(0)
#: Calls that may wait for a thread; more are sent away at once rather than kept waiting for long.
_CROWD = 512


#: Answers or what went wrong, each with its milliseconds.
Timed = list[tuple[Answer | EvergreenError, float]]


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
        self._given: list[Sample] = []
        self._traffic: dict[str, list[float]] = {}  # model id -> [answered, failed, ms, ms², compared, agreed]
        self._scheduled = False
        self._recent = Recent(_RECENT)
        self._handed, self._settled = 0, 0  # predictions to be written down, and those of which that is decided
        self._within = loop.config.collect.correction_within
        self._repeats = loop.config.collect.repeat_is_correction
        self._looking: set[asyncio.Task[None]] = set()
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
        session: str | None = None,
        subject: str | None = None,
        consent: bool = False,
    ) -> list[Answer]:
        """Answer every input and write it down; `unit` (or the session, or each id) decides which variant answers.

        An outcome may name the `session` (or the unit) instead of an id. Answers are stored only where consent is not
        asked for, or was given. Raises `NoModel`, `InvalidInput`.
        """
        unit, session = unit or session, session or unit
        if self.quick and len(values) == 1:
            timed = self._timed(values, ids, unit)
        else:
            timed = await self._in_thread(values, ids, unit)
        at = self.loop.now() if session else None
        answers = []
        for i, (result, _) in enumerate(timed):
            if not isinstance(result, Answer):
                self._failed(result)
                raise result if len(values) == 1 else at_place(result, i)
            answers.append(result)
        for id, answer, (_, ms) in zip(ids, answers, timed, strict=True):
            given = Given(id, answer.input, answer.output, answer.model.id, subject, session, at)
            self._note(given, answer, ms, consent)
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

    async def given(self, id: str) -> Given | None:
        """Return a prediction, or a sample, whenever and by whichever server it was taken."""
        return self._recent.get(id) or Given.of(await asyncio.to_thread(self.loop.ledger.sample, self.loop.name, id))

    async def asked(self, session: str, upto: datetime, *, slack: timedelta = _NONE, but: str = "") -> Given | None:
        """Return the newest prediction of a session before a moment, if it is not too old to be meant.

        `slack`: how much later than it was given another server may have written it down.
        """
        since = upto - self._within
        ours = self._recent.newest(session, since=since, upto=upto, but=but)
        look = partial(self.loop.ledger.asked, since=since, upto=upto + slack, but=but)
        found = Given.of(await asyncio.to_thread(look, self.loop.name, session))
        if found is None or found.at is None or self._recent.get(found.id) is not None:
            return ours
        return ours if ours is not None and ours.at is not None and ours.at >= found.at else found

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
        try:
            self._intake.put(self.loop.name, given, traffic, partial(self._written, len(given)))
        except Unavailable as e:
            self._handed -= len(given)
            self._tell(len(given), e)

    def _written(self, n: int, _: Sequence[bool] | None, error: Exception | None) -> None:
        """Note what became of predictions; called on the writer's thread."""
        self._settled += n
        self._tell(n, error)

    def _tell(self, n: int, error: Exception | None) -> None:
        """Count predictions that could not be written down; answering goes on."""
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
            tally = self._traffic[model.id] = [*_NOTHING]
        tally[0] += 1
        tally[2] += ms
        tally[3] += ms * ms
        self.meter.answers[model.version, model.state.value] += 1
        if answer.failed:
            self._blame(answer.failed)
        if self._log and (consent or not self._consent):
            self._given.append(self._sample(given))
            self._handed += 1
            self._recent.add(given, self._handed - self._settled)
            if self._repeats and given.session:
                looking = asyncio.get_running_loop().create_task(self._look_back(given))
                self._looking.add(looking)
                looking.add_done_callback(self._looking.discard)
        if answer.shadows and self._asking < _SHADOWS:
            self._asking += 1
            asked = asyncio.get_running_loop().run_in_executor(self._aside, self._ask, answer.shadows, given)
            asked.add_done_callback(self._asked)
        self._schedule()

    def _sample(self, given: Given) -> Sample:
        return Sample(
            id=given.id,
            loop=self.loop.name,
            input=given.value,
            output=given.output,
            origin="predict",
            subject=given.subject,
            model=given.model,
            session=given.session,
        )

    def _failed(self, error: EvergreenError) -> None:
        if isinstance(error, PredictionFailed):
            self._blame(error.failed)
            self._schedule()

    def _blame(self, models: Sequence[str]) -> None:
        for id in models:
            self._traffic.setdefault(id, [*_NOTHING])[1] += 1

    def _schedule(self) -> None:
        if len(self._given) >= _BATCH:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(_PAUSE, self.flush)

    async def _look_back(self, given: Given) -> None:
        """Count the answer before this one as wrong if its session asks nearly the same again."""
        if given.session is None or given.at is None:
            return
        try:
            before = await self.asked(given.session, given.at, but=given.id)
            if before is not None and before.model is not None and alike(before.value, given.value):
                self._intake.put(self.loop.name, [correction(self.loop, before)])
        except EvergreenError as e:
            log.warning("whether %s was asked again in %s cannot be told: %s", given.id, self.loop.name, e)

    def _ask(self, shadows: Sequence[Model], given: Given) -> list[tuple[str, Sequence[float]]]:
        """Ask models whose answers nobody hears; return what to count of each."""
        heard: list[tuple[str, Sequence[float]]] = []
        for model in shadows:
            start = time.perf_counter()
            try:
                output = self.live.ask(model, given.value)
                ms = (time.perf_counter() - start) * 1000
            except Unavailable:
                continue  # it went out of service meanwhile
            except Exception:  # noqa: BLE001 - counted against the model
                heard.append((model.id, (0, 1, 0.0, 0.0, 0, 0)))
            else:
                heard.append((model.id, (1, 0, ms, ms * ms, *self._compared(output, given.output))))
        return heard

    def _compared(self, one: Json, other: Json) -> tuple[int, int]:
        """Return whether two answers can be compared, and whether they decide the same."""
        decision = self.loop.recipe.decision
        try:
            return 1, int(decision(one) == decision(other))
        except (KeyError, TypeError):  # they are of different kinds
            return 0, 0

    def _asked(self, done: asyncio.Future[list[tuple[str, Sequence[float]]]]) -> None:
        self._asking -= 1
        if done.cancelled():
            return
        for id, more in done.result():
            tally = self._traffic.get(id, _NOTHING)
            self._traffic[id] = [a + b for a, b in zip(tally, more, strict=True)]
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
            self._met.difference_update(units)  # in place: the event loop may put another set there meanwhile


def at_place(error: EvergreenError, i: int) -> EvergreenError:
    """Say which of several things sent together an error is about."""
    error.field = f"[{i}].{error.field}" if error.field else f"[{i}]"
    return error
