"""A machine that trains for whoever shares a folder with it: offers itself, takes a job, trains, puts the model back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from evergreen.core import plugins
from evergreen.core.errors import ConfigError, EvergreenError
from evergreen.core.ports import Store, Ticket
from evergreen.job.far import protocol
from evergreen.job.far.beside import Pauses, Spawn, Trainer
from evergreen.job.far.claims import Claims, OpenJob, Work
from evergreen.job.far.hold import GLANCE_S, Hold, Me
from evergreen.job.far.news import Kind, News, Tell, Training, span
from evergreen.job.far.protocol import Ack, Control, Grant, Job, Keys, Machine, Offer, Result

#: An ended job is looked at again after so many looks: it may have been opened anew.
_AGAIN = 12


@dataclass(frozen=True)
class Terms:
    """For whom a worker works, and how long."""

    loops: Collection[str] = ()  #: only these, if any is named
    poll_s: float = 5.0
    once: bool = False  #: one training, then end
    session_s: float | None = None  #: the machine goes after this time
    wait_s: float | None = None  #: end when no training has come for so long
    grace_s: float = 20.0  #: for handing over when told to go

    @property
    def margin_s(self) -> float:
        """How long before the end of the session the training is handed over."""
        return min(300.0, 0.1 * (self.session_s or 0.0))


class Worker:
    """Acts in small turns: `step` does what is due and says how long to wait. Nothing it does can harm another's work."""

    def __init__(
        self,
        store: Store,
        trainer: Callable[[Path], Trainer],
        *,
        name: str,
        boot: str,
        machine: Machine,
        terms: Terms,
        scratch: Path,
        clock: Callable[[], float],
        spawn: Spawn,
        nonce: Callable[[], str],
        tell: Tell,
        able: Callable[[Job], str] | None = None,
    ) -> None:
        self.me = Me(name, boot, machine.title or name)
        self.terms = terms
        self.done: list[Training] = []
        self._store, self._trainer, self._machine, self._scratch = store, trainer, machine, scratch
        self._clock, self._spawn, self._tell = clock, spawn, tell
        self._able = able or _recipe_missing
        self._began = self._idle_since = clock()
        self._counter, self._looks, self._look_at = 0, 0, clock()
        self._pauses = Pauses(clock)
        self._told = self._leaving = False
        self._hold: Hold | None = None
        #: Keys of grants that this worker has had, has refused, or that are another's; never taken (again).
        self._past: set[str] = set()
        self._claims = Claims(store, self.me, clock, nonce)
        self._offered: dict[str, tuple[Keys, float]] = {}
        self._closed: dict[str, int] = {}
        #: Runs that were told that this worker is taken.
        self._withdrawn: set[str] = set()
        #: The job whose app has not answered yet, its keys, the mark, and how long to wait.
        self._waits_for: tuple[Job, Keys, str, float] | None = None
        #: The same of one that took too long; what it says at last is told, should nothing else be to do by then.
        self._unanswered: tuple[Job, Keys, str] | None = None

    def step(self) -> float | None:
        """Do what is due; say how many seconds may pass before the next turn, None when it is over."""
        self._heed_the_time()
        if self._hold is not None:
            return self._work(self._hold)
        if self._over():
            return None
        self._when_due(self._seek)
        return max(0.0, min(self._look_at - self._clock(), self.terms.poll_s))

    def _work(self, hold: Hold) -> float:
        try:
            going = hold.step()
        except OSError as e:
            self._say("trouble", f"Trouble on this machine: {e}")
            return 1.0
        if going:
            self._when_due(lambda: self._decline(hold))
            return min(GLANCE_S, self.terms.poll_s)
        self._let_go(hold)
        return 0.0

    def leave(self) -> None:
        """Hand over what is under way, and end. Safe to call from a signal handler."""
        self._told = True

    @property
    def told(self) -> bool:
        """Say whether it was told to go."""
        return self._told

    def abandon(self) -> None:
        """End at once: stop the training here; others find out by the silence."""
        if self._hold is not None:
            self._hold.abandon()
            self._hold = None

    # --- When -----------------------------------------------------------------------------------------------------

    @property
    def _lives_s(self) -> float | None:
        """How much of the session is left for training."""
        if self.terms.session_s is None:
            return None
        return max(0.0, self.terms.session_s - self.terms.margin_s - (self._clock() - self._began))

    def _heed_the_time(self) -> None:
        """Begin to go when told to, or when the session is about to end."""
        if self._leaving or not (self._told or self._lives_s == 0.0):
            return
        self._leaving = True
        then = "" if self._hold is None else "; the training is handed over"
        self._say("leaving", f"{'Told to go' if self._told else 'This session is about to end'}{then}.")
        if self._hold is not None:
            self._hold.drain(self.terms.grace_s if self._told else 0.75 * self.terms.margin_s)

    def _over(self) -> bool:
        if self._leaving:
            self._withdraw()
            return True
        if self.terms.once and self.done and self._waits_for is None:
            return True
        waited = self._clock() - self._idle_since
        if self.terms.wait_s is not None and waited > self.terms.wait_s and self._waits_for is None:
            self._say("leaving", f"No training came for {span(waited)}.")
            self._withdraw()
            return True
        return False

    def _when_due(self, act: Callable[[], None]) -> None:
        """Look into the folder if it is time; wait longer and longer while it is out of reach."""
        if self._pauses.on or self._clock() < self._look_at:
            return
        try:
            act()
        except (EvergreenError, OSError) as e:
            self._pauses.begin()
            self._say("trouble", f"The folder is out of reach; it is tried again. {e}")
        else:
            self._pauses.over()
        self._look_at = self._clock() + self.terms.poll_s

    # --- Looking for work -----------------------------------------------------------------------------------------

    def _seek(self) -> None:
        """Take what was given, claim what may be claimed, offer for the rest."""
        self._looks += 1
        self._hear_of_the_last()
        if self.terms.once and self.done:
            return
        jobs = sorted(self._jobs(), key=lambda found: (found.job.created, found.keys.run))
        obstacles = []
        for found in jobs:
            if work := self._given(found) or self._helped_itself(found):
                self._take(work)
                return
        for found in jobs:
            if obstacle := self._obstacle(found.job):
                obstacles.append(f"{found.job.ticket.loop}: {obstacle}")
            if found.job.mode == "grant" and not self._awaits(found.keys):
                self._offer(found.keys, obstacle)
        if self._waits_for is not None:
            return
        if obstacles:
            self._say("waiting", f"Waits; a training is there that this machine cannot do: {'; '.join(obstacles)}.")
        elif jobs:
            self._say("waiting", "A training is there; waits for the app to choose a worker, or for its holder.")
        else:
            self._say("waiting", "Waits for a training.")

    def _jobs(self) -> list[OpenJob]:
        """List the jobs that are open, as far as this machine can see."""
        by_run: dict[str, list[str]] = {}
        for key in self._store.list(protocol.JOBS):
            by_run.setdefault(key.split("/")[1], []).append(key)
        found = []
        for run, listed in by_run.items():
            keys = Keys(run)
            if keys.job not in listed or self._known_as_closed(keys, listed):
                continue
            job = protocol.read(self._store, keys.job, Job)
            if job is None or job.ticket.run != run or (self.terms.loops and job.ticket.loop not in self.terms.loops):
                continue
            ack = protocol.read(self._store, keys.ack, Ack)
            if ack is not None and ack.closes(job):
                self._closed[run] = self._looks
                continue
            self._closed.pop(run, None)
            found.append(OpenJob(job, keys, listed))
        return found

    def _known_as_closed(self, keys: Keys, listed: Sequence[str]) -> bool:
        return keys.ack in listed and self._looks - self._closed.get(keys.run, -_AGAIN) < _AGAIN

    def _obstacle(self, job: Job) -> str:
        """Say why this machine cannot train a job; empty if it can."""
        return self._machine.lacks(job.needs) or self._able(job)

    def _offer(self, keys: Keys, obstacle: str, *, leaving: bool = False) -> None:
        self._counter += 1
        offer = Offer(
            worker=self.me.worker,
            boot=self.me.boot,
            counter=self._counter,
            machine=self._machine,
            lives_s=self._lives_s,
            leaving=leaving,
            cannot=obstacle,
        )
        self._store.write(keys.offer(self.me.worker, self.me.boot), protocol.encode(offer))
        if not leaving:
            self._offered[keys.run] = (keys, self._clock())

    def _given(self, found: OpenJob) -> Work | None:
        """Return what was granted to this worker and still holds."""
        for grant in self._grants(found.keys, found.listed):
            if protocol.read(self._store, found.keys.control(grant.mark), Control) is None:
                job = msgspec.structs.replace(found.job, opening=grant.opening)
                return Work(job, grant.ticket, grant.resume)
            self._past.add(found.keys.grant(grant.mark))
        return None

    def _grants(self, keys: Keys, listed: Sequence[str]) -> list[Grant]:
        """Read the grants for this worker that it has not answered yet, the newest first."""
        mine = []
        for key in listed:
            if not key.startswith(keys.grants + "/") or key in self._past:
                continue
            grant = protocol.read(self._store, key, Grant)
            if grant is None or grant.ticket.run != keys.run or key != keys.grant(grant.mark):
                continue
            if (grant.worker, grant.boot) == (self.me.worker, self.me.boot):
                mine.append(grant)
            else:
                self._past.add(key)
        return sorted(mine, key=lambda grant: grant.ticket.attempt, reverse=True)

    def _helped_itself(self, found: OpenJob) -> Work | None:
        """Take a job by itself, where the app leaves that to workers."""
        if found.job.mode != "direct" or self._awaits(found.keys) or self._obstacle(found.job):
            return None
        return self._claims.take(found)

    # --- Having work ----------------------------------------------------------------------------------------------

    def _take(self, work: Work) -> None:
        ticket = work.ticket
        keys = Keys(ticket.run)
        self._past.add(keys.grant(ticket.mark))
        self._look_at = self._clock()
        self._offered.pop(ticket.run, None)
        self._waits_for = self._unanswered = None
        folder = self._folder(ticket)
        self._hold = Hold(
            work.job,
            ticket,
            work.resume,
            me=self.me,
            store=self._store,
            trainer=self._trainer(folder),
            folder=folder,
            clock=self._clock,
            spawn=self._spawn,
            tell=self._tell,
        )
        self._say("taken", f"Trains {ticket.loop} (run {ticket.run[-8:]}, attempt {ticket.attempt}).")

    def _folder(self, ticket: Ticket) -> Path:
        return self._scratch / f"{ticket.run}-{ticket.mark}"

    def _decline(self, hold: Hold) -> None:
        """Tell others to whom this worker offered itself that it is taken; hand back at once what they gave it."""
        busy = hold.ticket.run
        for run, (keys, offered) in list(self._offered.items()):
            if run == busy or self._clock() - offered > 2 * hold.job.lease_s:
                del self._offered[run]
                continue
            if run not in self._withdrawn:
                self._offer(keys, "", leaving=True)
                self._withdrawn.add(run)
            for grant in self._grants(keys, self._store.list(keys.grants)):
                word = Result(
                    attempt=grant.ticket.attempt,
                    nonce=grant.ticket.nonce,
                    worker=self.me.worker,
                    boot=self.me.boot,
                    state="failed",
                    failure="preempted",
                    error="The worker had taken another job by then.",
                    where=self.me.where,
                )
                self._store.write(keys.result(grant.mark), protocol.encode(word))
                self._past.add(keys.grant(grant.mark))

    def _let_go(self, hold: Hold) -> None:
        """Write down what was done; be free for the next."""
        result, ticket = hold.result, hold.ticket
        done = Training(
            loop=ticket.loop,
            run=ticket.run,
            attempt=ticket.attempt,
            state="stopped" if result is None else result.state,
            seconds=self._clock() - hold.began,
            error="" if result is None else result.error,
            failure=None if result is None else result.failure,
        )
        self.done.append(done)
        self._say("ended", f"{done}.")
        if result is not None and not result.again:
            until = self._clock() + hold.job.lease_s + self._store.staleness_s
            self._waits_for = (hold.job, Keys(ticket.run), hold.mark, until)
        self._hold, self._idle_since, self._look_at = None, self._clock(), self._clock()
        self._withdrawn.clear()
        shutil.rmtree(self._folder(ticket), ignore_errors=True)

    def _awaits(self, keys: Keys) -> bool:
        return self._waits_for is not None and self._waits_for[1].run == keys.run

    def _hear_of_the_last(self) -> None:
        """See whether the app has taken the last result."""
        if self._unanswered is not None and (answer := self._answer(*self._unanswered)):
            self._say("ended", answer)
            self._unanswered = None
        if self._waits_for is None:
            return
        job, keys, mark, until = self._waits_for
        if answer := self._answer(job, keys, mark):
            self._say("ended", answer)
        elif self._clock() > until:
            self._say("ended", "The app has not answered yet; it will find the result in the folder when it looks.")
            self._unanswered = job, keys, mark
        else:
            self._say("waiting", "The result is in the folder; waits for the app to take it.")
            return
        self._waits_for, self._idle_since = None, self._clock()

    def _answer(self, job: Job, keys: Keys, mark: str) -> str:
        """Return what the app says of a result; empty while it says nothing."""
        ack = protocol.read(self._store, keys.ack, Ack)
        control = protocol.read(self._store, keys.control(mark), Control)
        if ack is not None and ack.opening == job.opening:
            took = "has taken the result" if ack.mark == mark else "took no notice of the result"
            return f"The app {took} ({ack.state})."
        if control is not None and control.what == "revoked":
            return f"The app did not take the result: {control.why}."
        return ""

    def _withdraw(self) -> None:
        """Tell everybody that no grant should come here any more."""
        for keys, _ in list(self._offered.values()):
            try:
                self._offer(keys, "", leaving=True)
            except (EvergreenError, OSError) as e:
                self._say("trouble", f"The folder is out of reach: {e}")
                return
        self._offered.clear()

    def _say(self, kind: Kind, text: str) -> None:
        self._tell(News(kind, text))


def _recipe_missing(job: Job) -> str:
    """Say why a job's recipe cannot be had here; empty if it can."""
    try:
        plugins.load("recipes", str(job.ticket.recipe["use"]))
    except ConfigError as e:
        return f"{e}. Try: {e.hint}" if e.hint else str(e)
    except Exception as e:  # noqa: BLE001 - somebody's module may raise anything when it is imported
        return f"its recipe cannot be imported: {type(e).__name__}: {e}"
    return ""
