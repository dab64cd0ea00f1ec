"""The nouns of the loop: frozen records, each written by one stage and read by the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

from evergreen.core.states import ExperimentState, ModelState, RunState, SampleState, UploadState

#: Whatever JSON can say: bool, int, float, str, None, lists and string-keyed mappings of the same.
Json = Any

SampleKind = Literal["example", "feedback", "model"]
#: Which side of the split a sample is on; empty until a dataset is frozen. It never changes after that.
Side = Literal["", "train", "holdout"]
Outcome = Literal["promote", "reject", "inconclusive", "not_comparable"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One datum from production: an input, what was answered, and what should have been."""

    id: str  #: chosen by whoever sends it; the same id twice is one sample
    loop: str
    state: SampleState = SampleState.ACCEPTED
    kind: SampleKind = "example"
    input: Json
    output: Json = None  #: what was answered
    label: Json = None  #: what is right; None while nobody knows
    weight: float = 1.0  #: how much training should heed it; 0 keeps it out
    side: Side = ""
    origin: str = ""  #: the source or door it came through
    subject: str | None = None  #: pseudonym of the person it is about
    group: str | None = None  #: what must not be torn apart by the split (session, camera, device)
    model: str | None = None  #: id of the model that answered
    session: str | None = None  #: whose questions follow each other: a conversation, a visit, a user
    right: bool | None = None  #: of an outcome: was the answer right?
    score: float | None = None  #: of an outcome that is a figure: larger is better
    seq: int = 0  #: its place in the ledger, given by the ledger
    at: datetime | None = None  #: when it was stored, given by the ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """A datum that could not be used, kept with the reason (quarantine)."""

    origin: str
    where: str  #: "line 17"
    raw: str  #: the first 2,000 characters as they came
    reason: str
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What every record has: an id, the loop it belongs to, and its place in the ledger."""

    id: str
    loop: str
    seq: int = 0  # given by the ledger
    at: datetime | None = None  # given by the ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset(Record):
    """A frozen version: every labelled, accepted sample up to position `as_of` of the ledger."""

    version: int
    as_of: int  #: seq of the newest sample in it
    collected: int  #: usable samples of the loop when it was frozen; what came after is new
    train: int  #: rows to learn from
    holdout: int  #: rows to judge by
    digest: str  #: sha256 over its files
    key: str  #: where it lies in the store
    origin: str | None = None  #: only samples of this origin, if not None
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What a dataset would hold if it were frozen now; costs a few look-ups, whatever its size."""

    usable: int  #: labelled, accepted samples
    new: int  #: of those, the ones that no run was queued for yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(Record):
    """One training on one dataset; `attempt` is its fencing token."""

    state: RunState
    why: str
    by: str = "trigger"
    attempt: int = 1
    dataset: str | None = None  #: id of the dataset; None while only requested
    base: str | None = None  #: id of the champion it is to be compared with
    force: bool = False  #: train even below `min_size`
    overrides: Mapping[str, Json] = field(default_factory=dict)  #: recipe options for this run only
    file: str | None = None  #: a file that was given for this run alone
    origin: str | None = None  #: train on samples of this origin only
    handle: str | None = None  #: what the runner knows it by
    error: str | None = None
    failure: str | None = None  #: a `FailureKind`
    progress: Mapping[str, Json] = field(default_factory=dict)  #: phase, step, total, metrics
    started: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Model(Record):
    """One model version: an immutable artifact, what was measured, and its share of the traffic."""

    state: ModelState
    version: int  #: 1, 2, 3 … within the loop
    key: str  #: where the artifact lies in the store
    run: str | None = None
    dataset: str | None = None
    base: str | None = None  #: id of the champion it was compared with
    scores: Mapping[str, float] = field(default_factory=dict)  #: means over the holdout
    rival_scores: Mapping[str, float] = field(default_factory=dict)  #: the champion's, same rows
    verdict: Mapping[str, Json] = field(default_factory=dict)  #: what the gate found: see `Verdict`
    details: Mapping[str, Json] = field(default_factory=dict)  #: size_bytes, latency_ms, n_train, …
    share: float = 0.0  #: of the traffic, 0 to 1
    since: datetime | None = None  #: in its state and share since


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload(Record):
    """A model that a user's device trained and sent in: checked, converted, waiting to join an ensemble."""

    state: UploadState
    name: str  #: as the file was called
    format: str  #: the plugin that read it: coreml, onnx
    sha256: str  #: of the file as it came
    size: int  #: its bytes
    key: str  #: where the file as it came (`original/`) and what was made of it (`model/`) lie in the store
    subject: str | None = None  #: pseudonym of the person whose device trained it
    description: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)  #: means over the holdout when it came in
    details: Mapping[str, Json] = field(default_factory=dict)  #: what it asks for, its labels, ms per answer, …
    run: str | None = None  #: the training that has it, or had it last
    model: str | None = None  #: the model that it is a part of
    weight: float | None = None  #: its vote in that model
    error: str | None = None  #: why it failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A version in an experiment, and its share of the units."""

    model: str
    version: int
    share: float
    before: Mapping[str, float] = field(default_factory=dict)  #: its tally when the experiment began
    out: str = ""  #: why it answers nobody any more


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment(Record):
    """Versions side by side in live traffic: who meets which is decided by its id and the unit."""

    state: ExperimentState
    arms: Sequence[Mapping[str, Json]]  #: each an `Arm`; the champion first, with the share that is left
    why: str
    by: str
    metric: Literal["accuracy", "score"] = "accuracy"
    alpha: float = 0.05  #: chance that any arm is called better, or worse, that is not
    burn_in: int = 50  #: outcomes of an arm and of the champion before anything is decided
    deadline: datetime | None = None
    promote: bool = False  #: make the best arm champion at the end
    ended: datetime | None = None
    report: Mapping[str, Json] = field(default_factory=dict)  #: how it stood at the end

    @property
    def parties(self) -> Sequence[Arm]:
        """The arms, the champion first."""
        return [Arm(**arm) for arm in self.arms]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event(Record):
    """One line of history: written in the same transaction as the change it tells of."""

    what: str  #: added, moved, skipped, rolled back, …
    subject: str  #: "run 9f…", "model 3b…", or the loop's name
    by: str
    because: str
    frm: str | None = None
    to: str | None = None
    details: Mapping[str, Json] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """What it is about: run, model, dataset, upload, or "" for the loop itself."""
        kind, _, id = self.subject.partition(" ")
        return kind if id else ""

    @property
    def about(self) -> str:
        """The id of the record it is about, or ""."""
        return self.subject.partition(" ")[2]

    @property
    def kind(self) -> str:
        """What happened in plain words, as `KINDS` has it; else noun and state, or `what` of the loop itself."""
        if not self.noun:
            return self.what
        return KINDS.get((self.noun, self.to or "added"), f"{self.noun} {self.to or self.what}")


#: (noun, state it came to) -> what people call it.
KINDS: Mapping[tuple[str, str], str] = {
    ("dataset", "added"): "new dataset",
    ("run", "requested"): "training asked for",
    ("run", "queued"): "training queued",
    ("run", "running"): "training started",
    ("run", "succeeded"): "training done",
    ("run", "failed"): "training failed",
    ("run", "cancelled"): "training cancelled",
    ("run", "skipped"): "training skipped",
    ("model", "candidate"): "new model",
    ("model", "passed"): "model passed",
    ("model", "rejected"): "model rejected",
    ("model", "undecided"): "model undecided",
    ("model", "shadow"): "in shadow",
    ("model", "canary"): "canary",
    ("model", "champion"): "new champion",
    ("model", "retired"): "champion retired",
    ("model", "rolled_back"): "rolled back",
    ("upload", "pending"): "new upload",
    ("upload", "processing"): "upload in training",
    ("upload", "incorporated"): "upload used",
    ("upload", "failed"): "upload failed",
    ("experiment", "running"): "experiment started",
    ("experiment", "frozen"): "experiment frozen",
    ("experiment", "ended"): "experiment ended",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gate thinks of a candidate, in words and figures."""

    outcome: Outcome
    because: str
    figures: Mapping[str, Json] = field(default_factory=dict)


Rec = TypeVar("Rec", Dataset, Run, Model, Upload, Experiment, Event)
Mov = TypeVar("Mov", Run, Model, Upload, Experiment)
