"""Raw rows become samples: consent first, then the recipe's own checks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from evergreen.core.errors import EvergreenError, InvalidInput, NoConsent, Stale
from evergreen.core.loop import Loop
from evergreen.core.ports import CursorMove, Incoming, Source
from evergreen.core.recipe import Datum
from evergreen.core.records import Json, Reject, Run, Sample, Side
from evergreen.core.states import RunState

#: Rows taken from a source in one transaction, and transactions in one tick: a tick stays short.
BATCH = 2000
BATCHES = 10

#: What a row may say about itself beside its data, posted or in a file.
_ENVELOPE = ("id", "subject", "consent")


@dataclass(frozen=True)
class Pull:
    """What came of pulling a source."""

    new: int = 0
    known: int = 0
    rejected: int = 0
    more: bool = False

    def __add__(self, other: Pull) -> Pull:
        """Sum up two pulls; there is more if the later says so."""
        return Pull(self.new + other.new, self.known + other.known, self.rejected + other.rejected, other.more)


def admit(loop: Loop, row: Mapping[str, Json], *, origin: str, id: str | None = None) -> Sample:
    """Make a sample of a posted row, which may carry its own `id`, `subject` and `consent`.

    Raises `NoConsent`, or `InvalidInput` that names the field. Stores nothing.
    """
    if not isinstance(row, Mapping):
        raise InvalidInput("a sample is a JSON object", field="")
    if loop.config.collect.consent and row.get("consent") is not True:
        raise NoConsent(field="consent", hint='Send "consent": true when the subject has agreed.')
    own = id if id is not None else row.get("id")
    if own is not None and (not isinstance(own, str) or not 0 < len(own) <= 200):
        raise InvalidInput("id is not a text of 1 to 200 characters", field="id")
    datum = loop.recipe.sample(_without_envelope(row))
    subject = row.get("subject")
    return _sample(loop, own or loop.new_id(), datum, origin, None if subject is None else str(subject))


def pull(loop: Loop) -> Pull:
    """Take in what is new in every source, and the file of a training that was asked for with one."""
    done = _pull_asked(loop)
    for source in loop.sources:
        try:
            pulled = pull_from(loop, source)
            done = replace(done + pulled, more=done.more or pulled.more)
            _trouble(loop, source, None)
        except Stale:
            continue  # another process was reading the same source; it stored what we read
        except Exception as e:  # noqa: BLE001 - a source may raise anything; the others are read all the same
            _trouble(loop, source, _said(e))
    return done


def _pull_asked(loop: Loop) -> Pull:
    """Take in the file of a training that was asked for with one; a file that cannot be read fails the training."""
    asked = loop.ledger.last(Run, loop.name, RunState.REQUESTED)
    if asked is None or asked.file is None:
        return Pull()
    try:
        if not Path(asked.file).is_file():
            raise InvalidInput(f"the file {asked.file} is gone", field="file")
        done = pull_from(loop, loop.open_file(Path(asked.file)), batches=None)
        if done.known and not loop.ledger.counts(loop.name, origin=asked.origin).usable:
            with loop.ledger.together():  # a copy of what was collected before: its rows are filed under that name
                loop.ledger.update(asked, origin=None)
                because = f"all {done.known} rows of {Path(asked.file).name} are known already: training on all samples"
                loop.ledger.note(loop.name, "file known", by="collect", because=because)
        return done
    except Stale:
        return Pull()  # another process was reading the same file, or the request has been withdrawn
    except Exception as e:  # noqa: BLE001 - whatever it is, it would be so at every turn, and nothing else be done
        error = f"{Path(asked.file).name} could not be read: {_said(e)}"
        loop.ledger.move(
            asked, RunState.FAILED, by="run", because=error, error=error, failure="configuration", ended=loop.now()
        )
        return Pull()


def _said(e: Exception) -> str:
    return str(e) if isinstance(e, EvergreenError) else f"{type(e).__name__}: {e}"


def pull_from(loop: Loop, source: Source, *, batches: int | None = BATCHES) -> Pull:
    """Take in what is new in one source; the cursor moves with the rows or not at all."""
    done = Pull(more=True)
    while done.more and batches != 0:
        was = loop.ledger.recall("cursor", f"{loop.name}/{source.origin}")
        pulled = source.pull(was, BATCH)
        samples: list[Sample] = []
        rejects = list(pulled.rejects)
        for row in pulled.rows:
            try:
                samples.append(_incoming(loop, row, source.origin))
            except Exception as e:  # noqa: BLE001 - a recipe may raise anything; one row must not stop those behind it
                rejects.append(Reject(origin=source.origin, where=row.where, raw=row.raw[:2000], reason=_said(e)))
        if not samples and not rejects and pulled.cursor in (None, was):
            return Pull(done.new, done.known, done.rejected)
        cursor = CursorMove(source.origin, was, pulled.cursor or "")
        stored = loop.ledger.append(loop.name, samples, rejects=rejects, cursor=cursor)
        done += Pull(sum(stored), len(stored) - sum(stored), len(rejects), pulled.more)
        batches = None if batches is None else batches - 1
    return done


def side_of(loop: Loop, id: str, group: str | None) -> Side:
    """Choose the side of a sample by a hash of its group or id; empty where time decides, at freeze."""
    split = loop.config.dataset.split
    if split == "time" or (split == "auto" and loop.recipe.timely):
        return ""
    digest = hashlib.sha256((group or id).encode()).digest()
    return "holdout" if int.from_bytes(digest[:8]) / 2**64 < loop.config.dataset.holdout else "train"


def _incoming(loop: Loop, row: Incoming, origin: str) -> Sample:
    if loop.config.collect.consent and not row.consent:
        raise NoConsent("the row does not say that its subject has agreed", field="consent")
    return _sample(loop, row.id, loop.recipe.sample(_without_envelope(row.row)), origin, row.subject)


def _without_envelope(row: Mapping[str, Json]) -> dict[str, Json]:
    """Return what can be learnt from: whose a row is and what it is called says nothing about the next one."""
    return {name: value for name, value in row.items() if name not in _ENVELOPE}


def _sample(loop: Loop, id: str, datum: Datum, origin: str, subject: str | None) -> Sample:
    return Sample(
        id=id,
        loop=loop.name,
        input=datum.input,
        label=datum.label,
        weight=datum.weight,
        group=datum.group,
        side=side_of(loop, id, datum.group),
        origin=origin,
        subject=subject,
    )


def _trouble(loop: Loop, source: Source, message: str | None) -> None:
    """Tell once that a source cannot be read, and once that it can again."""
    key = f"{loop.name}/{source.origin}"
    before = loop.ledger.recall("trouble", key)
    if message == before:
        return
    what, because = (
        ("source failed", message) if message else ("source recovered", f"{source.origin} can be read again")
    )
    with loop.ledger.together():
        loop.ledger.remember("trouble", key, message)
        loop.ledger.note(loop.name, what, by="collect", because=because or "")
