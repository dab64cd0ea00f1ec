"""Trigger files and trainings: each file is taken once, each training has a file, and both tell the same story."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from time import monotonic

from evergreen import engine
from evergreen.core.errors import AlreadyWaiting, NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Model, Run
from evergreen.core.states import WAITING
from evergreen.templates.backdoor import folder, jobs, wishes
from evergreen.templates.backdoor.wishes import Wish

#: Scopes of the ledger: what is known of each file, and up to which training each has one.
_FILES, _RUNS = "backdoor-triggers", "backdoor-runs"
#: Seconds for which a file that cannot be read is left alone: it may still be on its way.
PATIENCE_S = 5.0
#: What is known of a file that is gone is forgotten after this long.
_FORGET = timedelta(days=30)


@dataclass(frozen=True)
class Entry:
    """What the ledger knows of one trigger file. It knows first; the file follows."""

    mark: str  #: of the request
    at: str  #: since when
    run: str | None = None  #: the training that belongs to it
    settled: bool = False  #: nothing about it will change any more
    born: Mapping[str, Json] | None = None  #: a file of our own that has not been written yet


class Triggers:
    """Keeps the trigger files of one loop in step with its trainings.

    A file counts by what stands in it: a new request under an old name is a new request, the same request with
    another status is not. Whatever dies between two lines, a request is asked once: the ledger remembers the file
    in the transaction that adds the training.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = monotonic,
        patience_s: float = PATIENCE_S,
        published: Callable[[Loop, Model], bool] = lambda _loop, _model: True,
    ) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._published = published
        self._doubtful: dict[str, tuple[str, float]] = {}  # file -> what it held, since when
        self._turn = 0

    def look(self, loop: Loop) -> None:
        """Take new files, write what changed, in both directions."""
        self._give_birth(loop)
        known = _known(loop)
        there = [key for key in loop.store.list(folder.TRIGGERS) if folder.is_trigger(key)]
        settled = [key for key in there if key in known and known[key].settled]
        again = settled[self._turn % len(settled)] if settled else None  # one at a look: it may hold a new request
        self._turn += 1
        fixed = f"{folder.TRIGGERS}/{folder.PREFIX}{folder.SUFFIX}"  # the name that is used over and over
        for key in there:
            if key not in settled or key in (again, fixed):
                self._one(loop, key, known.get(key))
        for key, entry in known.items():
            if key not in there:
                self._absent(loop, key, entry)

    def _give_birth(self, loop: Loop) -> None:
        """Let every training have a file, also one that nobody asked for by file."""
        done = int(loop.ledger.recall(_RUNS, loop.name) or 0)
        runs = loop.ledger.find(Run, loop.name, after=done)
        if not runs:
            return
        with loop.ledger.together():
            asked = {entry.run for entry in _known(loop).values()}
            for run in runs:
                if run.id not in asked:
                    key, raw = _file_of(run)
                    _remember(loop, key, Entry(wishes.mark_of(raw), loop.now().isoformat(), run.id, born=raw))
            loop.ledger.remember(_RUNS, loop.name, str(runs[-1].seq))

    def _one(self, loop: Loop, key: str, entry: Entry | None) -> None:
        """Look at one file that is there."""
        try:
            wish = wishes.read(loop.store.read(key))
        except NotFound:
            return  # it went a moment ago
        if entry is not None and entry.mark == wish.mark:
            self._follow(loop, key, wish, entry)
        elif wish.status in jobs.ENDED:  # from before this ledger
            _remember(loop, key, Entry(wish.mark, loop.now().isoformat(), settled=True))
        elif wish.problem:
            self._doubt(loop, key, wish)
        elif wish.status != "pending":
            self._end(loop, key, wish, "No training of this app belongs to it. Write a new trigger.")
        else:
            taken = _take(loop, key, wish)
            if taken is not None:
                self._follow(loop, key, wish, taken)

    def _follow(self, loop: Loop, key: str, wish: Wish, entry: Entry) -> None:
        """Write into a file how far its training is, where it does not say so yet."""
        if entry.settled or entry.run is None:
            return
        answer = self._answer(loop, entry.run)
        if any(wish.raw.get(name) != value for name, value in answer.items()):
            loop.store.write(key, folder.encoded({**wish.raw, **answer, "updated_at": loop.now().isoformat()}))
        ended = answer["status"] in jobs.ENDED
        if ended or entry.born:
            _remember(loop, key, replace(entry, settled=ended, born=None))

    def _absent(self, loop: Loop, key: str, entry: Entry) -> None:
        """Write a file of our own for the first time; let one rest that somebody has deleted."""
        if entry.born is not None:
            self._follow(loop, key, Wish(entry.mark, raw=entry.born), entry)
        elif not entry.settled and (entry.run is None or self._answer(loop, entry.run)["status"] in jobs.ENDED):
            _remember(loop, key, replace(entry, settled=True))
        elif entry.settled and loop.now() - datetime.fromisoformat(entry.at) > _FORGET:
            loop.ledger.remember(_scope(loop), key, None)

    def _doubt(self, loop: Loop, key: str, wish: Wish) -> None:
        """Refuse a file that cannot be used, once it has stayed the same for a while."""
        before, since = self._doubtful.get(key, ("", 0.0))
        if before != wish.mark:
            self._doubtful[key] = (wish.mark, self._clock())
        elif self._clock() - since >= self._patience_s:
            self._doubtful.pop(key)
            self._end(loop, key, wish, f"This trigger cannot be used: {wish.problem}.")

    def _end(self, loop: Loop, key: str, wish: Wish, why: str) -> None:
        """Write into a file that nothing comes of it, and why. What stood in it stays."""
        said = {**wish.raw, "status": "failed", "message": why, "updated_at": loop.now().isoformat()}
        if not wish.raw:  # there is no place in it to write: keep it under another name
            kept = f"{folder.TRIGGERS}/refused/{wish.mark}_{key.rpartition('/')[2]}"
            loop.store.put_new(kept, loop.store.read(key))
            said["original"] = kept
        data = folder.encoded(said)
        loop.store.write(key, data)
        with loop.ledger.together():
            _remember(loop, key, Entry(wishes.read(data).mark, loop.now().isoformat(), settled=True))
            loop.ledger.note(loop.name, "trigger refused", by="backdoor", because=why, details={"file": key})

    def _answer(self, loop: Loop, run_id: str) -> dict[str, Json]:
        """Say what a file should say of its training: "completed" once what came of it can be fetched."""
        try:
            run = loop.ledger.get(Run, run_id)
        except NotFound:
            return {"status": "failed", "message": "Its training is not known any more.", "run": run_id}
        name, model = jobs.model_of(loop, run)
        status = jobs.status_of(loop, run, model)
        said: dict[str, Json] = {"status": status, "message": jobs.message_of(run, name, model), "run": run_id}
        if name is not None and model is not None and status == "completed":
            if not self._published(loop, model):
                return {**said, "status": "training", "message": f"{said['message']} Its files are being published."}
            said["model_info"] = json.loads(json.dumps(jobs.model_info(name, model), default=str))
        return said


def _take(loop: Loop, key: str, wish: Wish) -> Entry | None:
    """Ask for the training that a file wishes; None while another one runs, which would not see the newest samples.

    One that waits already, and is forced if this is, will do.
    """
    try:
        with loop.ledger.together():
            entry = _known(loop).get(key)
            if entry is not None and entry.mark == wish.mark:
                return entry  # another process was faster
            waiting = loop.ledger.last(Run, loop.name, *WAITING)
            if waiting is None or (wish.force and not waiting.force):
                by = f"{wish.by} (trigger file)"
                waiting = engine.ask(loop, by=by, why=wish.reason, force=wish.force)
            taken = Entry(wish.mark, loop.now().isoformat(), waiting.id)
            _remember(loop, key, taken)
            return taken
    except AlreadyWaiting:
        return None


def _file_of(run: Run) -> tuple[str, dict[str, Json]]:
    """Return name and content of the file of a training that was not asked for by one."""
    own = run.by in ("trigger", "gate")
    at = run.at.strftime("%Y%m%dT%H%M%SZ") if run.at else "0"
    raw = {
        "created_at": run.at.isoformat(timespec="seconds") if run.at else "",
        "reason": run.why,
        "force": run.force,
        "status": "pending",
        "source": "app",
        "triggered_by": "the app itself" if own else run.by,
    }
    return f"{folder.TRIGGERS}/{folder.PREFIX}_{at}_{run.id[-6:]}{folder.SUFFIX}", raw


def _scope(loop: Loop) -> str:
    return f"{_FILES}/{loop.name}"


def _known(loop: Loop) -> dict[str, Entry]:
    return {key: Entry(**json.loads(said)) for key, said in loop.ledger.recall_all(_scope(loop)).items()}


def _remember(loop: Loop, key: str, entry: Entry) -> None:
    loop.ledger.remember(_scope(loop), key, json.dumps(asdict(entry)))
