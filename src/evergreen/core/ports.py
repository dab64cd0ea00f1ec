"""The promises a backend makes. Each is kept by several classes and checked by one contract suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from evergreen.core.recipe import Interface
from evergreen.core.records import Event, Json, Mov, Rec, Reject, Sample, Side
from evergreen.core.states import SampleState, State


@dataclass(frozen=True, slots=True)
class Tally:
    """What live traffic says of one model version since it came into service."""

    answered: int = 0
    failed: int = 0
    judged: int = 0  #: answers that a label later came for
    right: int = 0  #: of those, answers equal to the label
    latency_ms: float = 0.0  #: summed over `answered`
    scored: int = 0  #: answers whose outcome came as a figure
    score: float = 0.0  #: summed over `scored`
    score_sq: float = 0.0  #: its squares, summed
    compared: int = 0  #: answers in the shadow that were compared with the one that was sent
    agreed: int = 0  #: of those, answers that decide the same
    latency_sq: float = 0.0  #: squares of milliseconds, summed over `answered`

    def __add__(self, other: Tally) -> Tally:
        """Sum two tallies."""
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Tally) -> Tally:
        """Return what came after `other`."""
        return Tally(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Counts:
    """How many samples a loop (or one origin of it) has. Kept as they come: reading costs the same for any number."""

    usable: int = 0  #: accepted and labelled: what a dataset is made of
    unlabelled: int = 0  #: accepted, label not known (predictions served)
    pending: int = 0  #: waiting for review
    rejected: int = 0  #: refused by a reviewer
    quarantined: int = 0  #: could not be read


@dataclass(frozen=True, slots=True)
class CursorMove:
    """How far a source was read: moved together with the samples it brought, or not at all."""

    origin: str
    was: str | None
    now: str


class Ledger(Protocol):
    """Rows that outlive the process. Every change of a record writes its event in the same transaction."""

    def append(
        self,
        loop: str,
        samples: Sequence[Sample],
        *,
        rejects: Sequence[Reject] = (),
        cursor: CursorMove | None = None,
        traffic: Mapping[str, Tally] | None = None,
    ) -> Sequence[bool]:
        """Store a batch in one transaction; say of each sample whether it was new (by loop and id).

        Raises `Stale`, storing nothing, when `cursor.was` is not where the ledger thinks the source is.
        `traffic` (model id -> what to add) is summed up in the same transaction. So is what outcomes (`feedback`
        with a model) say of theirs; one by the id of another replaces it and counts as new if it says something else.
        """
        ...

    def sample(self, loop: str, id: str) -> Sample | None:
        """Return one sample, at a cost that does not grow with their number."""
        ...

    def asked(self, loop: str, session: str, *, since: datetime, upto: datetime, but: str = "") -> Sample | None:
        """Return the newest sample of a session that was stored between two moments, other than `but`; as cheaply."""
        ...

    def samples(
        self,
        loop: str,
        *,
        side: Side | None = None,
        state: SampleState = SampleState.ACCEPTED,
        labelled: bool = True,
        after: int = 0,
        upto: int | None = None,
        origin: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[Sample]:
        """Read samples in ledger order (or backwards), a page at a time; safe while others write."""
        ...

    def unsided(self, loop: str, *, upto: int, origin: str | None = None) -> Sequence[int]:
        """Return the seqs, rising, of usable samples that are on no side yet."""
        ...

    def take_sides(self, loop: str, *, holdout_after: int, upto: int, origin: str | None = None) -> None:
        """Put usable samples that are on no side yet on one: `holdout` if seq > `holdout_after`, else `train`."""
        ...

    def rejects(self, loop: str, *, limit: int = 100) -> Sequence[Reject]:
        """Return the newest quarantined rows."""
        ...

    def counts(self, loop: str, *, origin: str | None = None) -> Counts:
        """Count samples, at a cost that does not grow with their number."""
        ...

    def add(self, record: Rec, *, by: str, because: str) -> Rec:
        """Store a new record; return it with its `seq` and `at`. Raises `AlreadyWaiting` for a second
        waiting (or second running) run of a loop, `Conflict` for a version that is taken."""
        ...

    def move(self, record: Mov, to: State, *, by: str, because: str, **changes: Any) -> Mov:
        """Change a record's state if `states.check` allows it and nobody was faster (else `Stale`)."""
        ...

    def update(self, record: Mov, **changes: Any) -> Mov:
        """Change fields that are not states (progress, handle); writes no event. `Stale` as in `move`."""
        ...

    def note(self, loop: str, what: str, *, by: str, because: str, details: Mapping[str, Json] | None = None) -> Event:
        """Write an event that changes no record: a signal, a skipped turn."""
        ...

    def get(self, kind: type[Rec], id: str) -> Rec:
        """Return one record or raise `NotFound`."""
        ...

    def last(self, kind: type[Rec], loop: str, *states: State) -> Rec | None:
        """Return the newest record in one of `states` (any, if none is given)."""
        ...

    def find(
        self,
        kind: type[Rec],
        loop: str | None,
        *states: State,
        after: int = 0,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Sequence[Rec]:
        """Return records in ledger order (or backwards); of every loop, if `loop` is None."""
        ...

    def tally(self, model: str) -> Tally:
        """Sum up live traffic of one model version."""
        ...

    def expose(self, experiment: str, units: Mapping[str, str]) -> None:
        """Keep which arm each unit met first (unit -> arm); what is kept of a unit stays."""
        ...

    def exposed(self, experiment: str) -> Mapping[str, int]:
        """Count the units that each arm met, at a cost that does not grow with their number."""
        ...

    def recall(self, scope: str, key: str) -> str | None:
        """Return a remembered value (cursors, keys' hashes, clocks)."""
        ...

    def recall_all(self, scope: str) -> Mapping[str, str]:
        """Return everything remembered in a scope."""
        ...

    def remember(self, scope: str, key: str, value: str | None) -> None:
        """Remember a value; None forgets it."""
        ...

    def revision(self) -> int:
        """Return a number that rises with every record added or moved; cheap enough to ask ten times a second."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """Make every change inside the block at once, or none of them; nobody sees it half done."""
        ...

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a named lease; False when another holder's has not run out."""
        ...

    def release(self, name: str, holder: str) -> None:
        """Give a lease back."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Store(Protocol):
    """Folders and small objects by key. The one thing a remote worker shares.

    Folders (datasets, artifacts, reports) never change. An object is a file of that very name for whoever looks
    into the shared folder with other tools. Names are unique among folders and among objects; where a product
    keeps objects as files, a key below an object's key is a `Conflict`.
    """

    #: `put_new` has exactly one winner, also among machines. Where it has not, only one process may use it on a key.
    exclusive: bool
    #: Seconds after which what was stored is seen by every reader.
    staleness_s: float

    def put(self, key: str, folder: Path, moved: Moved | None = None) -> Mapping[str, str]:
        """Store a folder; readers see all of it or none. Return {file: sha256}. The same key twice with the
        same files is one folder; with others it raises `Conflict`. What broke off goes on where it stopped."""
        ...

    def get(self, key: str, folder: Path, moved: Moved | None = None) -> None:
        """Copy a stored folder out, every file verified by sha256. Raises `NotFound`, `Corrupt`."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Store a small object in place of what was there; readers see the old one or the new one, whole."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a small object if there is none by that key; False if there is. Of two callers one wins."""
        ...

    def read(self, key: str) -> bytes:
        """Return a small object, or raise `NotFound`."""
        ...

    def list(self, prefix: str = "") -> Sequence[str]:
        """List the keys of folders and objects below a prefix, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Forget a key; no error if it is not there."""
        ...


#: Told, while a folder is moved, how many bytes of how many have been.
Moved = Callable[[int, int], None]


@dataclass(frozen=True)
class Ticket:
    """What the far side needs to train one run; small enough to be a JSON file in a shared folder."""

    run: str
    loop: str
    attempt: int  #: the fencing token
    recipe: Mapping[str, Json]  #: {"use": name, …options}
    dataset: str  #: store key
    out: str  #: store key of the artifact
    base: str | None = None  #: store key of the champion's artifact
    digests: Mapping[str, str] = field(default_factory=dict)  #: store key -> sha256 of the folder that is meant
    base_recipe: Mapping[str, Json] | None = None  #: how the champion is loaded, where that differs
    seed: int = 0
    threads: int = 1
    limit_s: float | None = None  #: wall-clock bound
    uploads: Mapping[str, str] = field(default_factory=dict)  #: models from devices: id -> store key
    nonce: str = ""  #: tells attempts of the same number apart, where two could be under way
    slices: tuple[str, ...] = ()  #: by which columns the holdout is told apart, for the gate

    @property
    def mark(self) -> str:
        """Name this attempt among those of its run."""
        return f"{self.attempt}-{self.nonce}" if self.nonce else str(self.attempt)


@dataclass(frozen=True)
class Evidence:
    """What the far side measured on the holdout, row by row, so that comparisons are paired."""

    ids: Sequence[str] = ()
    candidate: Mapping[str, Sequence[float]] = field(default_factory=dict)
    champion: Mapping[str, Sequence[float]] = field(default_factory=dict)
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)  #: name -> the part each row belongs to
    #: rows of one number belong together; empty: each row stands for itself
    groups: Sequence[int] = field(default_factory=list)
    strata: Sequence[str] = field(default_factory=list)  #: the layer each row was drawn from; empty: there is one
    #: "candidate", "champion" -> for each row what `Recipe.certainty` said
    sure: Mapping[str, Sequence[tuple[float, float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """What a runner knows of a run it was given."""

    state: Literal["waiting", "running", "done", "failed", "lost", "cancelled"]
    phase: str = ""
    step: int = 0
    total: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    failure: str | None = None  #: a `FailureKind`, when failed
    details: Mapping[str, Json] = field(default_factory=dict)  #: what `Recipe.train` returned, when done
    artifact: str | None = None  #: store key of the model, when done; `ticket.out` if not set
    where: str = ""  #: the machine, for people: "colab-7f2 (Tesla T4)"
    left_s: float | None = None  #: how long it may still take, seconds
    heard_s: float | None = None  #: how long ago the machine was last heard of, where that is not now


class Runner(Protocol):
    """Somewhere training happens that is not the serving path.

    Built as `Class(options, ledger=…, store=…, store_use=…, home=…, state=…)`.
    """

    def start(self, ticket: Ticket) -> str:
        """Begin, and return a handle that survives a restart. The same run and attempt twice begins once."""
        ...

    def poll(self, handle: str) -> Progress:
        """Say how it goes; never blocks."""
        ...

    def cancel(self, handle: str) -> None:
        """Ask it to stop; no error if it already has."""
        ...


class Format(Protocol):
    """One kind of model file that strangers may send. Its code runs in a locked-down process."""

    #: Endings of the names of such files, in lower case: (".onnx",).
    suffixes: Sequence[str]

    def read(self, file: Path, out: Path) -> Interface:
        """Check a file, write `out/model.onnx` that does the same, say what it asks for.

        Raises `InvalidInput` with the reason for anything that is not plainly harmless and well-formed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Incoming:
    """A row as a source has it, before the recipe, consent and anonymising have seen it."""

    id: str  #: the same row always has the same id
    row: Mapping[str, Json]
    where: str = ""  #: "line 17"
    raw: str = ""
    subject: str | None = None
    consent: bool = False


@dataclass(frozen=True)
class Pulled:
    """What a source had that is new."""

    rows: Sequence[Incoming]
    rejects: Sequence[Reject]
    cursor: str | None  #: where to go on; None if there was nothing ever
    more: bool = False  #: there is more right now


class Source(Protocol):
    """Somewhere samples come from when nobody posts them."""

    #: What its cursor and samples are filed under; the same across restarts.
    origin: str

    def pull(self, cursor: str | None, limit: int) -> Pulled:
        """Return at most `limit` rows that are new since `cursor`, and the next cursor."""
        ...


class Subscriber(Protocol):
    """Somebody outside who is told what happens, one event at a time, in order, at least once."""

    #: Kinds of events (`Event.kind`, `Event.what`, or a noun) it is told where nobody says otherwise; empty: all.
    kinds: Sequence[str]
    #: Seconds after an event in which others of its loop and kind become one message, where nobody says otherwise.
    collapse_s: float
    #: Names of the environment's variables whose values must never be shown.
    secrets: Sequence[str]

    def tell(self, event: Event, look: Ledger) -> None:
        """Pass an event on; `look` is there to be read. Raises whatever went wrong, to be told the event again.

        The same event may come twice, with the same id. `details["more"]` counts others that it stands for.
        """
        ...
