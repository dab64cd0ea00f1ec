"""The models now in service, kept in step with the ledger."""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from evergreen.core.errors import EvergreenError, InvalidInput, NoModel
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Model
from evergreen.core.states import IN_SERVICE, ModelState
from evergreen.stages.serve.router import dial
from evergreen.stages.serve.slot import Slot


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, and by whom."""

    output: Json
    model: Model
    failed: Sequence[str] = ()  #: ids of models that raised before this one answered
    shadows: Sequence[Model] = ()  #: models that are to be asked too, where nobody waits


@dataclass(frozen=True, slots=True)
class Lineup:
    """Who is in service: replaced as a whole, never changed."""

    champion: Slot | None = None
    canary: Slot | None = None
    shadows: tuple[Slot, ...] = ()
    spare: tuple[Slot, ...] = ()  #: former champions, kept warm

    @property
    def slots(self) -> list[Slot]:
        """Everything that is loaded."""
        first = [s for s in (self.champion, self.canary) if s is not None]
        return [*first, *self.shadows, *self.spare]


class Live:
    """Answers requests; `refresh` swaps models under running requests without dropping any."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lock = Lock()  # choosing a slot and entering it is one act: no swap comes between
        self._loading = Lock()  # one refresh at a time
        self._lineup = Lineup()
        self._warm: dict[str, Slot] = {}
        #: Models that could not be loaded: id -> why.
        self.broken: dict[str, str] = {}

    @property
    def lineup(self) -> Lineup:
        """Who is in service now."""
        return self._lineup

    def refresh(self) -> None:
        """Load what came into service beside what serves, swap, then let what went out of service drain."""
        with self._loading:
            lineup = self._wanted()
            with self._lock:
                old, self._lineup = self._lineup, lineup
            kept = {id(s) for s in lineup.slots}
            unused, self._warm = list(self._warm.values()), {}
            for slot in [*old.slots, *unused]:
                if id(slot) not in kept:
                    slot.retire()

    def warm(self, model: Model) -> None:
        """Load a model that is about to come into service, so that the swap itself takes no time."""
        with self._loading:
            if model.id not in self._loaded():
                self._warm[model.id] = self._load(model)

    def answer(self, value: Json, unit: str) -> Answer:
        """Answer one request. A challenger that fails is covered by the champion, a champion by its predecessor.

        `unit` decides who answers: the same one meets the same model. Raises `NoModel`, `InvalidInput`.
        """
        value = self._loop.recipe.check(value)
        failed: list[str] = []
        error: Exception | None = None
        with self._lock:
            lineup = self._lineup
            order = self._order(lineup, unit)
            for slot in order:
                slot.enter()
        try:
            for slot in order:
                try:
                    (output,) = slot.predictor.predict([value])
                except InvalidInput:
                    raise
                except Exception as e:  # noqa: BLE001 - counted against the model; the next one answers
                    failed.append(slot.model.id)
                    error = e
                    continue
                return Answer(output, slot.model, failed, [s.model for s in lineup.shadows])
        finally:
            for slot in order:
                slot.leave()
        if error is None:
            raise NoModel(f"no model of {self._loop.name} is in service yet")
        raise ModelsFailed(failed, error)

    def ask(self, model: Model, value: Json) -> Json:
        """Ask one model in service, a shadow for example. Raises what it raises, `NoModel` when it has gone."""
        with self._lock:
            slot = next((s for s in self._lineup.slots if s.model.id == model.id), None)
            if slot is None:
                raise NoModel(f"v{model.version} is not in service any more")
            slot.enter()
        try:
            (output,) = slot.predictor.predict([self._loop.recipe.check(value)])
            return output
        finally:
            slot.leave()

    def close(self) -> None:
        """Take everything out of service."""
        with self._lock:
            old, self._lineup = self._lineup, Lineup()
        for slot in [*old.slots, *self._warm.values()]:
            slot.retire()

    @staticmethod
    def _order(lineup: Lineup, unit: str) -> list[Slot]:
        """Say who is to answer, and who stands in."""
        order = [lineup.champion] if lineup.champion is not None else []
        canary = lineup.canary
        if canary is not None and dial(canary.model.id, unit) < canary.model.share:
            order.insert(0, canary)
        return [*order, *lineup.spare] if order else order

    def _wanted(self) -> Lineup:
        """Return the line-up that the ledger asks for, loading what is not loaded yet."""
        loaded = self._loaded()
        champion: Slot | None = None
        canary: Slot | None = None
        shadows: list[Slot] = []
        for model in self._loop.ledger.find(Model, self._loop.name, *IN_SERVICE):
            slot = self._slot(model, loaded)
            if slot is None:
                if model.state is ModelState.CHAMPION:
                    champion = self._lineup.champion  # better the old answer than none
                continue
            if model.state is ModelState.CHAMPION:
                champion = slot
            elif model.state is ModelState.CANARY:
                canary = slot
            else:
                shadows.append(slot)
        return Lineup(champion, canary, tuple(shadows), self._spare(loaded, champion))

    def _spare(self, loaded: dict[str, Slot], champion: Slot | None) -> tuple[Slot, ...]:
        """Keep the newest former champions warm."""
        keep = self._loop.config.serve.keep_warm
        retired = self._loop.ledger.find(Model, self._loop.name, ModelState.RETIRED) if keep else ()
        newest = sorted(retired, key=lambda m: m.since.timestamp() if m.since else 0.0, reverse=True)[:keep]
        slots = (self._slot(m, loaded) for m in newest if champion is None or m.id != champion.model.id)
        return tuple(s for s in slots if s is not None)

    def _loaded(self) -> dict[str, Slot]:
        return {s.model.id: s for s in self._lineup.slots} | self._warm

    def _slot(self, model: Model, loaded: dict[str, Slot]) -> Slot | None:
        known = loaded.get(model.id)
        if known is not None:
            if known.model != model:
                known.model = model  # its state or share has changed, the artifact never does
            return known
        try:
            slot = self._load(model)
        except Exception as e:  # noqa: BLE001 - told in the health report; the others serve on
            self.broken[model.id] = f"v{model.version}: {e}"
            return None
        self.broken.pop(model.id, None)
        return slot

    def _load(self, model: Model) -> Slot:
        folder = self._loop.state / "cache" / model.key
        if not folder.is_dir():
            part = folder.with_name(f".{folder.name}-{self._loop.new_id()}")
            try:
                self._loop.store.get(model.key, part)
                part.replace(folder)
            except OSError:
                if not folder.is_dir():  # else another thread or process was quicker
                    raise
            finally:
                shutil.rmtree(part, ignore_errors=True)
        slot = Slot(model, self._loop.recipe.load(Path(folder)))
        _give_back()
        return slot


def _give_back() -> None:
    """Return to the system what loading left unused, where the C library can (a third of a forest's footprint)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class ModelsFailed(EvergreenError):
    """Every model in service failed on this input."""

    code = "prediction_failed"

    def __init__(self, failed: Sequence[str], cause: Exception) -> None:
        super().__init__(f"every model in service failed on this input: {type(cause).__name__}: {cause}")
        self.failed = failed
