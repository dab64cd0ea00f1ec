"""One attempt as the app follows it through the folder: publish, choose a worker, listen, believe, or give up."""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from evergreen.backends.runner.folder import sweep
from evergreen.backends.runner.folder.book import Book, Row
from evergreen.core.errors import Conflict, Corrupt, EvergreenError, NotFound
from evergreen.core.ports import Progress, Store
from evergreen.job.far import protocol
from evergreen.job.far.protocol import Ack, Beat, Claim, Control, Grant, Job, Keys, Mode, Needs, Offer, Paper, Result

#: A holder that is silent for so many leases is given up even if nobody else is there.
_PATIENCE = 10
#: So many checkpoints are named to whoever goes on.
_RESUME = 4
#: So many looks in a row must have taken long before it is believed that they always do: this may have been asleep in one.
_LOOKS = 3


@dataclass(frozen=True)
class Pace:
    """How often each looks and speaks, and what is asked of a worker."""

    beat_s: float
    poll_s: float
    lease_s: float
    staleness_s: float
    mode: Mode
    needs: Needs
    keep: int

    @property
    def fresh_s(self) -> float:
        """How long ago an offer's counter may have risen."""
        return max(self.lease_s / 3, 3 * self.poll_s + self.staleness_s)


class Watch:
    """Follows one attempt. `look` does all there is to do now; it holds no lock, starts no thread and never sleeps.

    What is decided is in the ledger before anything of it is in the folder, so that this may end between any two
    lines: the next watch begins by publishing what the ledger says.
    """

    def __init__(
        self,
        handle: str,
        book: Book,
        store: Store,
        pace: Pace,
        *,
        scratch: Path,
        clock: Callable[[], float],
        nonce: Callable[[], str],
        changed: Callable[[], None],
        wake: Callable[[], str],
    ) -> None:
        self.handle, self.pace = handle, pace
        self.run, self._attempt = protocol.parse(handle)
        self.progress = Progress("waiting", "waiting for the first look into the folder")
        self._keys = Keys(self.run)
        self._book, self._store, self._scratch = book, store, scratch
        self._clock, self._nonce, self._changed, self._wake = clock, nonce, changed, wake
        self._published: dict[str, bytes] = {}
        self._looked = clock()
        self._took: deque[float] = deque(maxlen=_LOOKS)  #: how long the last looks took
        self._forget()

    @property
    def news(self) -> Progress:
        """Return what the last look showed."""
        if self.progress.state != "running":
            return self.progress
        return replace(self.progress, heard_s=self._clock() - self._heard)

    def look(self) -> bool:
        """Look once; True while there is more to see."""
        began = self._clock()
        if began - self._looked > self.pace.fresh_s:
            self._forget()  # asleep or blind for a while: what was heard before says nothing of now
        try:
            more = self._look()
        except (EvergreenError, OSError) as e:
            if self.progress.state in ("waiting", "running"):
                self.progress = replace(self.progress, phase=f"out of sight: {_said(e)}", left_s=None)
            return True
        self._looked = self._clock()
        self._took.append(self._looked - began)
        return more

    def _forget(self) -> None:
        """Begin to listen anew, on this machine's own clock."""
        self._heard = self._clock()
        self._counter = -1
        self._listened = ""
        self._refusal = ""
        #: Of each offer: the highest counter seen, when it was last looked at, when it was seen to rise.
        self._offers: dict[str, tuple[int, float, float | None]] = {}
        self._alone = self._clock()

    def _look(self) -> bool:
        row = self._book.row(self.run)
        if row is None or row.ticket.attempt != self._attempt:
            return False  # forgotten, or the next attempt's watch looks after it
        over = None if row.closed else self._book.over(self.run)
        if over is not None:  # nobody waits for it any more
            self._book.change(row, msgspec.structs.replace(row, closed=over, state=row.state or "cancelled"))
            return True
        self._publish(row)
        self._put_right(row)
        if row.state:
            return self._finish(row)
        if self.pace.mode == "direct":
            row = self._adopt(row)
        if row.mark:
            self._follow(row)
        elif row.cancelled:
            self._settle(row, Progress("cancelled", error="It was cancelled before a worker had it."))
        elif self.pace.mode == "direct":
            self.progress = Progress("waiting", "waiting for a worker to take it")
        else:
            self._seek(row)
        return True

    # --- What the folder must say ---------------------------------------------------------------------------------

    def _publish(self, row: Row) -> None:
        """Write what follows from the row and was not written by this watch; the same row gives the same bytes."""
        for key, paper in self._papers(row):
            data = protocol.encode(paper)
            if self._published.get(key) != data:
                self._store.write(key, data)
                self._published[key] = data

    def _put_right(self, row: Row) -> None:
        """See whether the watch of an attempt before, slow or in another process, has put its own `job.json` back."""
        there = None if row.closed else protocol.read(self._store, self._keys.job, Job)
        if there is not None and there.ticket.attempt < row.ticket.attempt:
            self._published.pop(self._keys.job, None)
            self._publish(row)

    def _papers(self, row: Row) -> Sequence[tuple[str, Paper]]:
        keys, pace = self._keys, self.pace
        said: list[tuple[str, Paper]] = [
            (keys.control(mark), Control(what="revoked", why="another attempt counts"))
            for mark in row.marks
            if mark != row.mark
        ]
        job = Job(
            ticket=row.ticket,
            opening=row.opening,
            created=row.created,
            lease_s=pace.lease_s,
            beat_s=pace.beat_s,
            poll_s=pace.poll_s,
            mode=pace.mode,
            needs=pace.needs,
        )
        said.append((keys.job, job))  # also of what is over: an ack is heeded by its opening
        if row.closed:
            return [
                *said,
                (
                    keys.ack,
                    Ack(opening=row.opening, attempt=row.ticket.attempt, state=row.closed, mark=row.mark, why=row.why),
                ),
            ]
        if row.mark and row.cancelled:
            said.append((keys.control(row.mark), Control(what="cancel", why="somebody asked to stop it")))
        if row.mark and pace.mode == "grant":
            grant = Grant(ticket=row.held, opening=row.opening, worker=row.worker, boot=row.boot, resume=row.resume)
            said.append((keys.grant(row.mark), grant))
        return said

    # --- Nobody has it --------------------------------------------------------------------------------------------

    def _seek(self, row: Row) -> None:
        """Give the job to a worker that is surely awake."""
        fresh, seen, cannot = self._fresh_offers()
        if not fresh:
            phase = "waiting for a worker"
            if seen:
                phase += f": {seen} offered, " + ("none lately" if not cannot else f"one cannot: {cannot}")
            if self._clock() - self._alone > self.pace.fresh_s:  # who is there would have been seen by now
                phase += self._wake()
            self.progress = Progress("waiting", phase)
            return
        self._alone = self._clock()
        offer = max(fresh, key=lambda offer: (offer.worker != row.worker, _lives(offer), offer.worker, offer.boot))
        mark = f"{self._attempt}-{self._nonce()}"
        found = self._store.list(self._keys.attempts) if row.kin else ()
        given = msgspec.structs.replace(
            row,
            mark=mark,
            worker=offer.worker,
            boot=offer.boot,
            marks=(*row.marks, mark),
            kin=(*row.kin, mark),
            resume=tuple(protocol.checkpoints(found, row.kin)[:_RESUME]),
        )
        if self._book.change(row, given):
            self._listen(given)
            self.progress = Progress("waiting", "waiting for the chosen worker to begin", where=offer.machine.title)
            self._publish(given)

    def _fresh_offers(self) -> tuple[list[Offer], int, str]:
        """Return offers whose counter this watch saw rise lately, how many there are in all, and why one cannot."""
        now, cannot, seen = self._clock(), "", 0
        apart = max(self.pace.fresh_s, 2 * min(self._took) if len(self._took) == _LOOKS else 0.0)
        fresh = []
        for key in self._store.list(self._keys.offers):
            offer = protocol.read(self._store, key, Offer)
            if offer is None:
                continue
            seen += 1
            counter, looked, rose = self._offers.get(key, (offer.counter, now, None))
            if offer.counter > counter:
                # What rose between two looks far apart may have risen long ago.
                counter, rose = offer.counter, now if now - looked <= apart else None
            self._offers[key] = (counter, now, rose)
            lately = rose is not None and now - rose <= self.pace.fresh_s and offer.counter >= counter
            lack = offer.cannot or offer.machine.lacks(self.pace.needs)
            if lately and lack:
                cannot = f"{lack} ({offer.machine.title or offer.worker})"
            if lately and not lack and not offer.leaving and _lives(offer) > self.pace.beat_s + self.pace.poll_s:
                fresh.append(offer)
        return fresh, seen, cannot

    def _adopt(self, row: Row) -> Row:
        """Accept that a worker took the job by itself: the highest claim is the one that counts."""
        newest = max(map(protocol.number_of, self._store.list(self._keys.claims)), default=0)
        if newest <= row.newest:
            return row
        claim = protocol.read(self._store, self._keys.claim(newest), Claim)
        if claim is None or claim.attempt != newest or not claim.nonce.isalnum():
            return row
        taken = msgspec.structs.replace(
            row,
            mark=claim.mark,
            worker=claim.worker,
            boot=claim.boot,
            marks=(*row.marks, claim.mark),
            kin=(*row.kin, claim.mark),
        )
        if not self._book.change(row, taken):
            return self._book.row(self.run) or row
        self._publish(taken)
        return taken

    # --- Somebody has it ------------------------------------------------------------------------------------------

    def _listen(self, row: Row) -> None:
        """Count the holder's silence from now on."""
        self._heard, self._counter, self._listened, self._refusal = self._clock(), -1, row.mark, ""

    def _follow(self, row: Row) -> None:
        if self._listened != row.mark:
            self._listen(row)
        if self._believe(row):
            return
        beat = protocol.read(self._store, self._keys.beat(row.mark), Beat)
        if beat is not None and beat.counter > self._counter:
            self._counter, self._heard = beat.counter, self._clock()
            self.progress = _running(beat)
        silent_s = self._clock() - self._heard
        if silent_s <= self.pace.lease_s:
            return
        if row.cancelled:
            self._settle(row, Progress("cancelled", error="It was cancelled; its worker was gone.", where=self._where))
        elif self.pace.mode == "grant" and (self._fresh_offers()[0] or silent_s > _PATIENCE * self.pace.lease_s):
            why = self._refusal or f"nothing was heard of its worker for {silent_s:.0f} s"
            self._settle(row, Progress("lost", error=why, failure="lost", where=self._where))
        else:
            said = self._refusal or f"silent for {silent_s:.0f} s; waiting for it or for another worker"
            self.progress = replace(self.progress, state="running", phase=said, left_s=None)

    @property
    def _where(self) -> str:
        return self.progress.where

    def _believe(self, row: Row) -> bool:
        """Take the holder's result, if there is one and it is whole; say whether the attempt has ended."""
        result = protocol.read(self._store, self._keys.result(row.mark), Result)
        if result is None or (result.mark, result.worker, result.boot) != (row.mark, row.worker, row.boot):
            return False
        if row.cancelled:
            self._settle(row, Progress("cancelled", error="It was cancelled.", where=result.where))
            return True
        if result.state == "done":
            self.progress = replace(self.progress, state="running", phase="verifying the model", left_s=None)
            refusal = self._verify(row, result)
            if refusal:
                if not self._refusal:
                    self._heard = self._clock()  # from now on it has a lease's time to come through
                self._refusal = refusal
                self.progress = replace(self.progress, phase=refusal)
                return False
        elif self.pace.mode == "direct" and result.failure == "preempted":
            self._heard = self._clock()
            self.progress = Progress("waiting", "waiting for the next worker: it was handed over")
            return True
        self._settle(row, result.progress())
        return True

    def _verify(self, row: Row, result: Result) -> str:
        """Read all that a result names; say what is not as it says, empty if all is well."""
        evaluation = self._keys.evaluation(row.mark)
        if (result.artifact, result.evaluation) != (row.held.out, evaluation):
            return "the result names a place that was not given to it"
        for key, files in ((row.held.out, result.files), (evaluation, result.evaluation_files)):
            folder = self._scratch / f"{row.mark}-{self._nonce()}"
            try:
                self._store.get(key, folder)
                if not files or _digests(folder) != dict(files):
                    return f"{key} is not what the result says it is"
            except (NotFound, Corrupt, Conflict) as e:
                return f"the result is there, its files are not yet: {e}"
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return ""

    # --- It has ended ---------------------------------------------------------------------------------------------

    def _settle(self, row: Row, progress: Progress) -> None:
        """Write down, once, how the attempt ended; then say so in the folder."""
        again = progress.state == "lost" or progress.failure in ("lost", "preempted")
        ended = msgspec.structs.replace(
            row,
            state=progress.state,
            why=progress.error[:500],
            mark="" if again else row.mark,
            closed="" if again else progress.state,
        )
        if self._book.change(row, ended, progress):
            self.progress = progress
            self._changed()
            self._publish(ended)

    def _finish(self, row: Row) -> bool:
        """See to it that nobody works on in vain, and that nothing is left lying about."""
        self.progress = self._book.outcome(self.handle) or self.progress
        if not row.closed:
            return True  # the next attempt is about to begin
        if not row.tidy:
            sweep.tidy(self._store, row)
            self._book.change(row, msgspec.structs.replace(row, tidy=True))
        sweep.prune(self._store, self._book, self.pace.keep)
        return False


def _running(beat: Beat) -> Progress:
    return Progress("running", beat.phase, beat.step, beat.total, beat.metrics, where=beat.where, left_s=beat.left_s)


def _lives(offer: Offer) -> float:
    return float("inf") if offer.lives_s is None else offer.lives_s


def _digests(folder: Path) -> dict[str, str]:
    """Return {file: sha256} of what lies in a folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _said(e: Exception) -> str:
    return str(e) if isinstance(e, EvergreenError) else f"{type(e).__name__}: {e}"
