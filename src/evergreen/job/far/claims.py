"""Taking a job without the app: one claim for each attempt, of which the product lets only one worker be first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evergreen.core.ports import Store, Ticket
from evergreen.job.far import protocol
from evergreen.job.far.hold import Me
from evergreen.job.far.protocol import Beat, Claim, Job, Keys, Result

#: A claim may be taken over when its holder has been silent for so many leases on this worker's clock.
_SILENCE = 1.5


@dataclass(frozen=True)
class OpenJob:
    """A job that is open, as far as this worker can see."""

    job: Job
    keys: Keys
    listed: Sequence[str]


@dataclass(frozen=True)
class Work:
    """A job that is this worker's."""

    job: Job
    ticket: Ticket
    resume: Sequence[str]


class Claims:
    """One worker's claims, and how long it has heard nothing of those of others."""

    def __init__(self, store: Store, me: Me, clock: Callable[[], float], nonce: Callable[[], str]) -> None:
        self._store, self._me, self._clock, self._nonce = store, me, clock, nonce
        self._had: set[str] = set()
        #: Of each claim: the counter, since when it stands there, when it was last looked at.
        self._silence: dict[str, tuple[int, float, float]] = {}

    def take(self, found: OpenJob) -> Work | None:
        """Claim a job that nobody has, or whose holder is gone; None if it is not to be had."""
        job, keys = found.job, found.keys
        if not self._store.exclusive:
            return None
        newest = max((n for key in found.listed if (n := protocol.number_of(key)) > 0), default=0)
        last = protocol.read(self._store, keys.claim(newest), Claim) if newest else None
        if newest and (last is None or not (self._mine(keys, last) or self._vacant(found, last))):
            return None
        if last is not None and self._mine(keys, last):  # a claim whose answer was lost on its way
            mine = last
        else:
            mine = Claim(
                attempt=newest + 1,
                nonce=self._nonce(),
                opening=job.opening,
                worker=self._me.worker,
                boot=self._me.boot,
            )
            if not self._store.put_new(keys.claim(mine.attempt), protocol.encode(mine)):
                return None
        self._had.add(keys.claim(mine.attempt))
        resume = protocol.checkpoints(self._store.list(keys.attempts), self._marks(found)) if newest else ()
        return Work(job, protocol.marked(job.ticket, mine.attempt, mine.nonce), resume)

    def _mine(self, keys: Keys, claim: Claim) -> bool:
        here = (claim.worker, claim.boot) == (self._me.worker, self._me.boot)
        return here and keys.claim(claim.attempt) not in self._had

    def _marks(self, found: OpenJob) -> list[str]:
        """Return the marks of the attempts that workers took, the oldest first."""
        claims = (protocol.read(self._store, key, Claim) for key in found.listed if protocol.number_of(key) > 0)
        return [claim.mark for claim in sorted(filter(None, claims), key=lambda claim: claim.attempt)]

    def _vacant(self, found: OpenJob, claim: Claim) -> bool:
        """Say whether a claim's holder has handed over, or ended what the app has opened anew, or was silent for long."""
        result = protocol.read(self._store, found.keys.result(claim.mark), Result)
        if result is not None:
            return result.failure == "preempted" or claim.opening != found.job.opening
        beat = protocol.read(self._store, found.keys.beat(claim.mark), Beat)
        counter, now, key = -1 if beat is None else beat.counter, self._clock(), found.keys.claim(claim.attempt)
        known, since, seen = self._silence.get(key, (counter, now, now))
        if counter > known or now - seen > found.job.lease_s / 2:  # it lives, or this worker was asleep itself
            known, since = max(known, counter), now
        self._silence[key] = (known, since, now)
        return now - since > _SILENCE * found.job.lease_s
