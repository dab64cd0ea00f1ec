"""One attempt that this worker has: go on from a checkpoint, train beside the beats, save, say how it ended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from evergreen.core.errors import Conflict, Corrupt, EvergreenError, InvalidInput, NotFound, Unavailable
from evergreen.core.ports import Progress, Store, Ticket
from evergreen.job.far import protocol
from evergreen.job.far.beside import Pauses, Rate, Spawn, Task, Trainer
from evergreen.job.far.news import Kind, News, Tell, span
from evergreen.job.far.protocol import Ack, Beat, Claim, Control, Job, Keys, Result

#: How often the training beside is looked at; it costs nothing.
GLANCE_S = 0.25


@dataclass(frozen=True)
class Me:
    """Who holds."""

    worker: str
    boot: str
    where: str  #: the machine, for people


class Hold:
    """One attempt. `step` is one small turn: it never waits, and every access to the folder may fail.

    Whatever happens, it writes only below its own mark, where nobody reads once another mark counts.
    """

    def __init__(
        self,
        job: Job,
        ticket: Ticket,
        resume: Sequence[str],
        *,
        me: Me,
        store: Store,
        trainer: Trainer,
        folder: Path,
        clock: Callable[[], float],
        spawn: Spawn,
        tell: Tell,
    ) -> None:
        self.job, self.ticket, self.began = job, ticket, clock()
        self.mark = ticket.mark
        self.progress = Progress("waiting", "starting")
        self.stop = ""  #: "cancel" or "revoked", once the app has said so
        self.over = False
        self.result: Result | None = None
        self._me, self._store, self._trainer, self._folder = me, store, trainer, folder
        self._clock, self._spawn, self._tell = clock, spawn, tell
        self._keys = Keys(ticket.run)
        self._resume, self._from = list(resume), -1
        self._fetch: Task | None = None
        self._fetched = not resume
        self._handle: str | None = None
        self._ending = False
        self._upload: Task | None = None
        self._stored: list[int] = []  #: steps whose checkpoints are in the folder
        self._spent: set[int] = set()  #: steps whose checkpoints cannot be stored, ever
        self._counter, self._beat_at, self._look_at = 0, clock(), clock()
        self._pauses = Pauses(clock)
        self._draining, self._until = False, float("inf")
        self._rate = Rate()

    def step(self) -> bool:
        """Do what is due; False when nothing is left to do."""
        if not self.over:
            self._advance()
            if not self._pauses.on:
                try:
                    self._speak()
                    self._pauses.over()
                except (EvergreenError, OSError) as e:
                    self._pauses.begin()
                    self._say(
                        "trouble", f"The folder is out of reach ({e}); the training goes on, the folder is tried again."
                    )
        return not self.over

    def drain(self, grace_s: float) -> None:
        """Hand over: let the recipe save a checkpoint, and end it after `grace_s` whatever it does."""
        if not self._draining:
            self._draining, self._until = True, self._clock() + grace_s
            if self._handle is not None:
                self._trainer.drain(self._handle)

    def abandon(self) -> None:
        """End the training here and say nothing."""
        if self._handle is not None:
            self._trainer.cancel(self._handle)

    @property
    def ended(self) -> bool:
        """Say whether nothing is trained any more."""
        return self.progress.state not in ("waiting", "running")

    @property
    def _busy(self) -> bool:
        return (self._fetch is not None and not self._fetch.done) or (
            self._upload is not None and not self._upload.done
        )

    @property
    def checkpoints(self) -> Path:
        """Where the training beside leaves checkpoints and finds those of others."""
        return self._folder / "checkpoints" / self.ticket.run

    # --- On this machine ------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """See how the training beside goes; begin it, or end it."""
        if self.ended:
            return
        if self._handle is None:
            if self.stop or self._draining:
                self.progress = Progress("cancelled", error="It was stopped before it began.")
            elif self._ready():
                self._begin()
            return
        self.progress = self._trainer.poll(self._handle)
        if (self.stop or self._clock() > self._until) and not self.ended and not self._ending:
            self._ending = True
            self._trainer.cancel(self._handle)
        if not self.ended:
            self._rate.see(self._clock(), self.progress)
            self._say("running", self._line())

    def _ready(self) -> bool:
        """Fetch a checkpoint to go on from; True when there is one, or none can be had."""
        if self._fetched:
            return True
        if self._fetch is None:
            self.progress = Progress("running", "fetching a checkpoint")
            self._fetch = Task(self._go_on)
            self._spawn(self._fetch)
        elif self._fetch.done:
            late = self._clock() - self.began > max(self._store.staleness_s, self.job.poll_s)
            self._fetched = self._fetch.error is None or late
            self._fetch = None
        return self._fetched

    def _go_on(self) -> None:
        """Fetch the best checkpoint that can be read. Raises what hinders, if none can."""
        problem: Exception | None = None
        for key in self._resume:
            try:
                self._store.get(key, self.checkpoints / str(protocol.step_of(key)))
            except (NotFound, Corrupt, Conflict, InvalidInput) as e:
                problem = e
            else:
                self._from = protocol.step_of(key)
                self._say("checkpoint", f"Goes on from the checkpoint after step {self._from}.")
                return
        raise problem or NotFound()

    def _begin(self) -> None:
        try:
            self._handle = self._trainer.start(self.ticket)
            self.progress = Progress("running", "starting")
        except (Unavailable, OSError) as e:
            self.progress = Progress("lost", error=f"The machine could not start it: {e}", failure="lost")

    def _line(self) -> str:
        at = self.progress
        count = f" {at.step} of {at.total}" if at.total else f" {at.step}" if at.step else ""
        left = self._rate.left_s
        return f"{self.ticket.loop}: {at.phase or 'training'}{count}" + (f", about {span(left)} left" if left else "")

    # --- To the folder --------------------------------------------------------------------------------------------

    def _speak(self) -> None:
        """Hear the app, beat, store checkpoints, and at last say how it ended."""
        now = self._clock()
        if now >= self._look_at:
            self._listen()
            self._look_at = now + self.job.poll_s
        if self.stop == "revoked":
            if (self.ended or self._handle is None) and not self._busy:
                self.over = True
            return
        if now >= self._beat_at:
            self._beat()
            self._beat_at = now + self.job.beat_s
        saved = self._save()
        if self.ended and saved and not self._busy:
            self._deliver()

    def _listen(self) -> None:
        """Stop if the app says so, or if somebody else has it."""
        if self.stop == "revoked":
            return
        ack = protocol.read(self._store, self._keys.ack, Ack)
        control = protocol.read(self._store, self._keys.control(self.mark), Control)
        if ack is not None and ack.opening == self.job.opening:
            self._halt("revoked", f"The app has what it wants ({ack.state}); this machine stops.")
        elif control is not None and control.what == "revoked":
            self._halt("revoked", f"The app has taken it back: {control.why}.")
        elif control is not None and not self.stop:
            self._halt("cancel", "Somebody asked to stop it.")
        elif self.job.mode == "direct" and self._overtaken():
            self._halt("revoked", "Another worker has taken over.")

    def _overtaken(self) -> bool:
        return protocol.read(self._store, self._keys.claim(self.ticket.attempt + 1), Claim) is not None

    def _halt(self, what: str, why: str) -> None:
        self.stop = what
        self._say("running", why)

    def _beat(self) -> None:
        """Say that this worker lives. The counter rises though the folder may not have seen the last one."""
        self._counter += 1
        at = self.progress
        beat = Beat(
            counter=self._counter,
            phase=at.phase,
            step=at.step,
            total=at.total,
            metrics=at.metrics,
            left_s=self._rate.left_s,
            where=self._me.where,
        )
        self._store.write(self._keys.beat(self.mark), protocol.encode(beat))

    def _save(self) -> bool:
        """Store the newest checkpoint, beside the beats; say whether the newest is stored, or none is worth it."""
        if self._upload is not None:
            if not self._upload.done:
                return False
            task, self._upload = self._upload, None
            if task.error is not None and not isinstance(task.error, FileNotFoundError | Conflict | InvalidInput):
                raise task.error
        step = max(_steps(self.checkpoints), default=-1)
        if step <= max([self._from, *self._stored, *self._spent]):
            return True
        if self.ended and not _again(self.progress) and not self._draining:
            return True
        self._upload = Task(lambda: self._put(step))
        self._spawn(self._upload)
        return False

    def _put(self, step: int) -> None:
        """Store one checkpoint and forget the one before the last."""
        copy = self._folder / "leaving" / str(step)
        shutil.rmtree(copy, ignore_errors=True)
        try:
            self._spent.add(step)
            shutil.copytree(self.checkpoints / str(step), copy, copy_function=_link)
            if step not in sorted(_steps(self.checkpoints))[-2:]:
                return  # it was being removed while it was copied
            self._spent.discard(step)
            try:
                self._store.put(self._keys.checkpoint(self.mark, step), copy, self._wanted)
            except (Conflict, InvalidInput):
                self._spent.add(step)
                raise
            self._stored.append(step)
            self._say("checkpoint", f"The checkpoint after step {step} is in the folder.")
            while len(self._stored) > 2:
                self._store.delete(self._keys.checkpoint(self.mark, self._stored[0]))
                self._stored.pop(0)
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _wanted(self, _done: int, _total: int) -> None:
        """End an upload that nobody waits for."""
        if self.stop:
            raise InvalidInput("it is not wanted any more")

    def _deliver(self) -> None:
        """Say how it ended; the last word of this attempt."""
        self.result = self.result or self._summed_up()
        self._store.write(self._keys.result(self.mark), protocol.encode(self.result))
        self.over = True

    def _summed_up(self) -> Result:
        at, details = self.progress, dict(self.progress.details)
        stored = details.pop("stored", {})
        if at.state == "cancelled" and self.stop != "cancel":
            reason = "The worker had to go." if self._draining else at.error
            at = replace(at, state="failed", error=reason, failure="preempted" if self._draining else "lost")
        evaluation = self._keys.evaluation(self.mark) if at.state == "done" else None
        return Result(
            attempt=self.ticket.attempt,
            nonce=self.ticket.nonce,
            worker=self._me.worker,
            boot=self._me.boot,
            state=_end(at),
            metrics=at.metrics,
            error=at.error,
            failure=at.failure or ("lost" if at.state == "lost" else None),
            details=details,
            artifact=self.ticket.out if at.state == "done" else None,
            files=stored.get(self.ticket.out, {}),
            evaluation=evaluation,
            evaluation_files=stored.get(evaluation, {}),
            where=self._me.where,
        )

    def _say(self, kind: Kind, text: str) -> None:
        at = self.progress
        self._tell(
            News(
                kind,
                text,
                self.ticket.loop,
                self.ticket.run,
                at.phase,
                at.step,
                at.total,
                self._rate.left_s,
            )
        )


def _end(progress: Progress) -> Literal["done", "failed", "lost", "cancelled"]:
    return "lost" if progress.state == "waiting" or progress.state == "running" else progress.state


def _again(progress: Progress) -> bool:
    return progress.state == "lost" or progress.failure in ("lost", "preempted")


def _steps(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]


def _link(source: str, target: str) -> None:
    """Copy a file without copying its bytes, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
