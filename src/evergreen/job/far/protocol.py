"""What lies in the shared folder while a run is trained far away: the objects, their names, who writes which.

All of a run lies under `jobs/RUN/`. Every object has one writer. Each is a JSON object with `"v": 1`; members that
are not known are ignored, and what cannot be read (absent, half copied, of another version) is not there yet.

    job.json                            app     what there is to train, and at what pace people speak
    offers/WORKER-BOOT.json             worker  "I could": written again and again, with a counter that rises
    grants/MARK.json                    app     "you do it": one worker, one attempt, one nonce
    claims/N.json                       worker  "I do it", where no app need be awake (put-if-absent)
    attempts/MARK/beat.json             holder  "I live": how far it is, with a counter that rises
    attempts/MARK/checkpoints/STEP      holder  a stored folder, complete or absent
    attempts/MARK/result.json           holder  how it ended; once, last
    control/MARK.json                   app     cancel, or revoked
    ack.json                            app     which attempt counted, or why there is nothing more to do

MARK is `ATTEMPT-NONCE`. Nobody compares clocks: whoever waits counts on his own clock from the last rise he saw.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import msgspec

from evergreen.core.errors import InvalidInput, NotFound
from evergreen.core.ports import Progress, Store, Ticket
from evergreen.core.records import Json

VERSION = 1
#: The folder of all jobs.
JOBS = "jobs"
Mode = Literal["grant", "direct"]

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")
_HANDLE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,119})-(\d{1,9})")


class Needs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a machine must have to be given a job."""

    gpu: bool = False
    memory_gb: float = 0.0
    cpus: int = 0


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker's machine has."""

    host: str = ""
    gpu: str = ""  #: its name; empty if there is none
    memory_gb: float = 0.0
    cpus: int = 0
    versions: Mapping[str, str] = {}  #: of Python, Evergreen and the libraries that are there

    @property
    def title(self) -> str:
        """Name it for people: "colab-7f2 (Tesla T4)"."""
        return f"{self.host} ({self.gpu})" if self.gpu else self.host

    def lacks(self, needs: Needs) -> str:
        """Say what it has too little of; empty if it will do.

        >>> Machine(cpus=2).lacks(Needs(gpu=True))
        'it has no GPU'
        """
        if needs.gpu and not self.gpu:
            return "it has no GPU"
        if self.memory_gb < needs.memory_gb:
            return f"it has {self.memory_gb:g} GB of memory, not {needs.memory_gb:g}"
        if self.cpus < needs.cpus:
            return f"it has {self.cpus} processors, not {needs.cpus}"
        return ""


class Paper(msgspec.Struct, frozen=True, kw_only=True):
    """An object of the folder."""

    v: int = VERSION


class Job(Paper, frozen=True, kw_only=True):
    """`job.json`: what there is to train. Its ticket has no nonce; `attempt` is that of the app's newest try."""

    ticket: Ticket
    opening: str  #: drawn anew whenever the app opens the job; an `ack.json` of another opening is an old one
    created: float  #: seconds since the epoch, for people and for the order among jobs
    lease_s: float
    beat_s: float
    poll_s: float
    mode: Mode = "grant"
    needs: Needs = Needs()


class Offer(Paper, frozen=True, kw_only=True):
    """`offers/WORKER-BOOT.json`: a worker that could train this."""

    worker: str
    boot: str  #: drawn when the process began: after a restart it is somebody else
    counter: int
    machine: Machine = Machine()
    lives_s: float | None = None  #: how long its session will last; None: no end is known
    leaving: bool = False  #: it takes no grant any more
    cannot: str = ""  #: why it cannot train this; empty if it can


class Grant(Paper, frozen=True, kw_only=True):
    """`grants/MARK.json`: the ticket as this worker is to train it, with attempt, nonce and place for the model."""

    ticket: Ticket
    opening: str
    worker: str
    boot: str
    resume: Sequence[str] = ()  #: keys of checkpoints to go on from, the best first

    @property
    def mark(self) -> str:
        """Name the attempt."""
        return self.ticket.mark


class Claim(Paper, frozen=True, kw_only=True):
    """`claims/N.json`: a worker that took attempt N by itself."""

    attempt: int
    nonce: str
    opening: str
    worker: str
    boot: str

    @property
    def mark(self) -> str:
        """Name the attempt."""
        return f"{self.attempt}-{self.nonce}"


class Beat(Paper, frozen=True, kw_only=True):
    """`attempts/MARK/beat.json`: the holder lives, and how far it is."""

    counter: int
    phase: str = ""
    step: int = 0
    total: int = 0
    metrics: Mapping[str, float] = {}
    left_s: float | None = None  #: how long it may still take
    where: str = ""  #: the machine, for people


class Result(Paper, frozen=True, kw_only=True):
    """`attempts/MARK/result.json`: how the attempt ended."""

    attempt: int
    nonce: str
    worker: str
    boot: str
    state: Literal["done", "failed", "lost", "cancelled"]
    metrics: Mapping[str, float] = {}
    error: str = ""
    failure: str | None = None
    details: Mapping[str, Json] = {}
    artifact: str | None = None  #: store key of the model, when done
    files: Mapping[str, str] = {}  #: its files: sha256
    evaluation: str | None = None  #: store key of what was measured, when done
    evaluation_files: Mapping[str, str] = {}
    where: str = ""

    @property
    def mark(self) -> str:
        """Name the attempt."""
        return f"{self.attempt}-{self.nonce}"

    @property
    def again(self) -> bool:
        """Say whether it is the machine's doing, so that another may try."""
        return self.state == "lost" or self.failure in ("lost", "preempted")

    def progress(self) -> Progress:
        """Return what a runner says of it."""
        return Progress(
            self.state,
            phase=self.state,
            metrics=self.metrics,
            error=self.error,
            failure=self.failure,
            details=self.details,
            artifact=self.artifact,
            where=self.where,
        )


class Control(Paper, frozen=True, kw_only=True):
    """`control/MARK.json`: the app's word to a holder. Either way it stops."""

    what: Literal["cancel", "revoked"]
    why: str = ""


class Ack(Paper, frozen=True, kw_only=True):
    """`ack.json`: the job of this opening is over, and so is every one of an attempt before."""

    opening: str
    attempt: int = 0
    state: str  #: done, failed, cancelled or over
    mark: str = ""  #: the attempt that counted, if one did
    why: str = ""

    def closes(self, job: Job) -> bool:
        """Say whether it is this job that is over; a slow writer may have put an older `job.json` back.

        >>> Ack(opening="new", attempt=2, state="done").closes(
        ...     Job(ticket=Ticket("r", "l", 1, {}, "d", "o"), opening="old", created=0, lease_s=9, beat_s=1, poll_s=1)
        ... )
        True
        """
        return self.opening == job.opening or self.attempt > job.ticket.attempt


P = TypeVar("P", bound=Paper)


def encode(paper: Paper) -> bytes:
    """Write an object; the same object has the same bytes."""
    return msgspec.json.encode(paper, order="sorted")


def decode(data: bytes, kind: type[P]) -> P | None:
    """Read an object; None if it is not whole or of another version.

    >>> decode(b'{"v":1,"what":"cancel","why":"en', Control)
    >>> decode(b'{"v":1,"what":"cancel","later":[]}', Control)
    Control(v=1, what='cancel', why='')
    """
    try:
        paper = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return paper if paper.v == VERSION else None


def read(store: Store, key: str, kind: type[P]) -> P | None:
    """Read an object of the folder; None if it is not there yet, or not whole."""
    try:
        return decode(store.read(key), kind)
    except NotFound:
        return None


class Keys:
    """The names of the objects of one run."""

    def __init__(self, run: str) -> None:
        if not _SEGMENT.fullmatch(run):
            raise InvalidInput(f"{run!r} is not the id of a run", field="run")
        self.run = run
        self.root = f"{JOBS}/{run}"
        self.job = f"{self.root}/job.json"
        self.ack = f"{self.root}/ack.json"
        self.offers = f"{self.root}/offers"
        self.grants = f"{self.root}/grants"
        self.claims = f"{self.root}/claims"
        self.attempts = f"{self.root}/attempts"

    def offer(self, worker: str, boot: str) -> str:
        """Where a worker offers itself."""
        return f"{self.offers}/{worker}-{boot}.json"

    def grant(self, mark: str) -> str:
        """Where the app says who has an attempt."""
        return f"{self.grants}/{mark}.json"

    def claim(self, n: int) -> str:
        """Where a worker takes attempt `n` by itself."""
        return f"{self.claims}/{n}.json"

    def control(self, mark: str) -> str:
        """Where the app stops a holder."""
        return f"{self.root}/control/{mark}.json"

    def beat(self, mark: str) -> str:
        """Where a holder says that it lives."""
        return f"{self.attempts}/{mark}/beat.json"

    def result(self, mark: str) -> str:
        """Where a holder says how it ended."""
        return f"{self.attempts}/{mark}/result.json"

    def checkpoints(self, mark: str) -> str:
        """Where a holder's checkpoints are."""
        return f"{self.attempts}/{mark}/checkpoints"

    def checkpoint(self, mark: str, step: int) -> str:
        """Where the state after `step` is stored."""
        return f"{self.checkpoints(mark)}/{step}"

    def evaluation(self, mark: str) -> str:
        """Where an attempt leaves what it measured."""
        return f"evaluations/{self.run}/{mark}"


def step_of(checkpoint: str) -> int:
    """Return the step of a checkpoint's key, -1 for any other key.

    >>> step_of("jobs/r/attempts/1-a/checkpoints/500"), step_of("jobs/r/attempts/1-a/beat.json")
    (500, -1)
    """
    parts = checkpoint.split("/")
    return int(parts[5]) if len(parts) == 6 and parts[4] == "checkpoints" and parts[5].isdecimal() else -1


def number_of(claim: str) -> int:
    """Return the number of a claim's key, 0 for any other key.

    >>> number_of("jobs/r/claims/12.json"), number_of("jobs/r/job.json")
    (12, 0)
    """
    parts = claim.removesuffix(".json").split("/")
    return int(parts[3]) if len(parts) == 4 and parts[2] == "claims" and parts[3].isdecimal() else 0


def checkpoints(keys: Sequence[str], marks: Sequence[str]) -> list[str]:
    """Pick, from a listing of a run, the checkpoints of these attempts: the farthest first, then the newest."""
    found = [key for key in keys if step_of(key) >= 0 and key.split("/")[3] in marks]
    return sorted(found, key=lambda key: (step_of(key), marks.index(key.split("/")[3])), reverse=True)


def marked(ticket: Ticket, attempt: int, nonce: str) -> Ticket:
    """Return the ticket of one attempt: it leaves its model where no other attempt writes.

    >>> marked(Ticket("r", "l", 1, {}, "d", "models/l/r-1"), 2, "9f3a").out
    'models/l/r-2-9f3a'
    """
    place = ticket.out.removesuffix(f"-{ticket.attempt}")
    return replace(ticket, attempt=attempt, nonce=nonce, out=f"{place}-{attempt}-{nonce}")


def handle(ticket: Ticket) -> str:
    """Return what the app knows an attempt by."""
    return f"{Keys(ticket.run).run}-{ticket.attempt}"


def parse(handle: str) -> tuple[str, int]:
    """Return run and attempt. Raises `InvalidInput` for what was never a handle."""
    found = _HANDLE.fullmatch(handle)
    if found is None:
        raise InvalidInput(f"{handle!r} is not a handle", field="handle")
    return found[1], int(found[2])
