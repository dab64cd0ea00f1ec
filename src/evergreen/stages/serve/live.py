"""The models now in service, kept in step with the ledger."""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock

from evergreen.core.errors import Corrupt, InvalidInput, NoModel, PredictionFailed, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.records import Experiment, Json, Model
from evergreen.core.states import IN_SERVICE, ExperimentState, ModelState
from evergreen.stages.serve.generation import Generation
from evergreen.stages.serve.router import choose, dial
from evergreen.stages.serve.slot import Slot

#: How long a model stays loaded that was to come into service and has not.
WARM = timedelta(minutes=1)
#: How long to let a model be that could not be loaded.
RETRY = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, and by whom."""

    input: Json  #: as the recipe's `check` gave it back
    output: Json
    model: Model
    failed: Sequence[str] = ()  #: ids of models that raised before this one answered
    shadows: Sequence[Model] = ()  #: models that are to be asked too, where nobody waits
    generation: int = 0  #: of the line-up that answered: see `Generation`
    exposed: tuple[str, str] | None = None  #: the experiment the unit is in, and the arm it is to meet


@dataclass(frozen=True, slots=True)
class Split:
    """An experiment: which arm meets which units. An arm that is out has no slot; the champion answers for it."""

    id: str
    home: str  #: what the champion's arm is called
    arms: tuple[tuple[str, float, Slot | None], ...]  #: name, share, slot

    def arm(self, unit: str) -> tuple[Slot | None, tuple[str, str] | None]:
        """Return who is to answer a unit, if not the champion, and the exposure to write down."""
        at = choose(self.id, unit, [share for _, share, _ in self.arms])
        if at is None:
            return None, (self.id, self.home)
        name, _, slot = self.arms[at]
        return slot, None if slot is None else (self.id, name)


@dataclass(frozen=True, slots=True)
class Lineup:
    """Who is in service: replaced as a whole, never changed."""

    champion: Slot | None = None
    canary: Slot | None = None
    shadows: tuple[Slot, ...] = ()
    spare: tuple[Slot, ...] = ()  #: former champions, kept warm
    generation: int = 0  #: the same in every process for the same line-up, and rising
    split: Split | None = None  #: the experiment that is running

    @property
    def slots(self) -> list[Slot]:
        """Everything that is loaded."""
        first = [s for s in (self.champion, self.canary) if s is not None]
        arms = [slot for _, _, slot in self.split.arms if slot is not None] if self.split else []
        return [*first, *self.shadows, *(s for s in self.spare if s not in arms), *arms]


class Live:
    """Answers requests; `refresh` swaps models under running requests without dropping any."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lock = Lock()  # choosing a slot and entering it is one act: no swap comes between
        self._loading = Lock()  # one refresh at a time
        self._lineup = Lineup()
        self._generation = Generation(loop)
        self._warm: dict[str, tuple[Slot, datetime]] = {}  # loaded and not in the line-up: since when
        self._former: tuple[tuple[str, datetime | None], Sequence[Model]] | None = None
        self._failed: dict[str, datetime] = {}
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
            for slot in old.slots:
                if id(slot) not in kept:
                    slot.retire()
            self._tidy(kept)

    def warm(self, model: Model) -> None:
        """Load a model that is about to come into service, so that the swap itself takes no time."""
        with self._loading:
            if model.id not in self._loaded():
                self._load(model)

    def holds(self, model: str) -> bool:
        """Say whether a model is loaded, by its id."""
        return model in self._loaded()

    def answer(self, value: Json, unit: str) -> Answer:
        """Answer one request. A challenger that fails is covered by the champion, a champion by its predecessor.

        `unit` decides who answers: the same one meets the same model. Raises `NoModel`, `InvalidInput`.
        """
        value = self._loop.recipe.check(value)
        failed: list[str] = []
        error: Exception | None = None
        with self._lock:
            lineup = self._lineup
            order, exposed = self._order(lineup, unit)
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
                shadows = [s.model for s in lineup.shadows] if lineup.shadows else ()
                return Answer(value, output, slot.model, failed, shadows, lineup.generation, exposed)
        finally:
            for slot in order:
                slot.leave()
        if error is None:
            if self.broken:
                raise Unavailable(f"no model of {self._loop.name} can be loaded: {'; '.join(self.broken.values())}")
            raise NoModel(f"no model of {self._loop.name} is in service yet")
        raise PredictionFailed(
            f"every model in service failed on this input: {type(error).__name__}: {error}", failed=failed
        ) from error

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
        with self._loading:
            with self._lock:
                old, self._lineup = self._lineup, Lineup()
            warm, self._warm = self._warm, {}
            for slot in [*old.slots, *(slot for slot, _ in warm.values())]:
                slot.retire()

    @staticmethod
    def _order(lineup: Lineup, unit: str) -> tuple[list[Slot], tuple[str, str] | None]:
        """Say who is to answer, and who stands in; and what a unit in an experiment is exposed to."""
        sure = [s for s in (lineup.champion, *lineup.spare) if s is not None]
        canary = lineup.canary
        if canary is not None and (not sure or dial(canary.model.id, unit) < canary.model.share):
            return [canary, *sure], None
        if lineup.split is None or lineup.champion is None:
            return sure, None
        slot, exposed = lineup.split.arm(unit)
        return ([*sure] if slot is None else [slot, *(s for s in sure if s is not slot)]), exposed

    def _wanted(self) -> Lineup:
        """Return the line-up that the ledger asks for, loading what is not loaded yet."""
        generation = self._generation.read()
        while True:
            lineup = self._read(generation)
            now = self._generation.read()
            if now == generation:
                return lineup
            generation = now  # it was changed while we read

    def _read(self, generation: int) -> Lineup:
        loaded = self._loaded()
        champion: Slot | None = None
        canary: Slot | None = None
        shadows: list[Slot] = []
        wanted = self._loop.ledger.find(Model, self._loop.name, *IN_SERVICE)
        experiment = self._loop.ledger.last(Experiment, self._loop.name, ExperimentState.RUNNING)
        arms = {arm.model for arm in experiment.parties} if experiment else set()
        for id_ in self.broken.keys() - {m.id for m in wanted} - arms:
            self.broken.pop(id_, None)
        for model in wanted:
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
        split = None if experiment is None else self._split(experiment, loaded)
        return Lineup(champion, canary, tuple(shadows), self._spare(loaded, champion), generation, split)

    def _split(self, experiment: Experiment, loaded: dict[str, Slot]) -> Split:
        """Load the arms of an experiment."""
        home, *others = experiment.parties
        arms = []
        for arm in others:
            slot = None if arm.out else self._slot(self._loop.ledger.get(Model, arm.model), loaded)
            arms.append((f"v{arm.version}", arm.share, slot))
        return Split(experiment.id, f"v{home.version}", tuple(arms))

    def _spare(self, loaded: dict[str, Slot], champion: Slot | None) -> tuple[Slot, ...]:
        """Keep the newest former champions warm; also to answer while the champion cannot be loaded."""
        keep = self._loop.config.serve.keep_warm
        slots = (self._slot(m, loaded) for m in self._former_champions(keep))
        return tuple(s for s in slots if s is not None and (champion is None or s.model.id != champion.model.id))

    def _former_champions(self, keep: int) -> Sequence[Model]:
        """Return the champions retired last. They are others only when the champion is another, and may be many."""
        champion = self._loop.ledger.last(Model, self._loop.name, ModelState.CHAMPION)
        if not keep or champion is None:
            return ()
        reign = (champion.id, champion.since)
        if self._former is None or self._former[0] != reign:
            retired = self._loop.ledger.find(Model, self._loop.name, ModelState.RETIRED)
            newest = sorted(retired, key=lambda m: (m.since.timestamp() if m.since else 0.0, m.seq), reverse=True)
            self._former = (reign, newest[:keep])
        return self._former[1]

    def _loaded(self) -> dict[str, Slot]:
        return {s.model.id: s for s in self._lineup.slots} | {id: slot for id, (slot, _) in self._warm.items()}

    def _tidy(self, kept: set[int]) -> None:
        """Let go of what was loaded for a change that has not come; what has come is in the line-up now."""
        for id_, (slot, since) in list(self._warm.items()):
            if id(slot) in kept:
                del self._warm[id_]
            elif self._loop.now() - since >= WARM:
                del self._warm[id_]
                slot.retire()

    def _slot(self, model: Model, loaded: dict[str, Slot]) -> Slot | None:
        known = loaded.get(model.id)
        if known is not None:
            if known.model != model:
                known.model = model  # its state or share has changed, the artifact never does
            return known
        failed = self._failed.get(model.id)
        if failed is not None and self._loop.now() - failed < RETRY:
            return None
        try:
            slot = loaded[model.id] = self._load(model)
            return slot
        except Exception as e:  # noqa: BLE001 - told in the health report; the others serve on
            self.broken[model.id] = f"v{model.version}: {e}"
            self._failed[model.id] = self._loop.now()
            return None

    def _load(self, model: Model) -> Slot:
        """Load a model. Until it is in the line-up it counts as warm, so that it is let go of whatever comes."""
        folder = self._fetched(model)
        try:
            predictor = self._loop.recipe.load(folder)
        except Corrupt:  # the store has it whole
            shutil.rmtree(folder, ignore_errors=True)
            predictor = self._loop.recipe.load(self._fetched(model))
        slot = Slot(model, predictor)
        self._warm[model.id] = (slot, self._loop.now())
        self.broken.pop(model.id, None)
        self._failed.pop(model.id, None)
        _give_back()
        return slot

    def _fetched(self, model: Model) -> Path:
        """Return a folder with the artifact, fetched from the store if it is not here yet."""
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
        return folder


def _give_back() -> None:
    """Return to the system what loading left unused, where the C library can (a third of a forest's footprint)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
