"""Stage 2. Samples become a dataset: numbered, immutable, its holdout never seen by any training."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import floor
from pathlib import Path

import msgspec

from evergreen.core.errors import EvergreenError, InvalidInput, Stale
from evergreen.core.loop import Loop
from evergreen.core.recipe import Row
from evergreen.core.records import Dataset, Run, Sample, Snapshot
from evergreen.job.digest import digest as digest_of

log = logging.getLogger(__name__)

_DAY_S = 86400.0


def latest(loop: Loop) -> Snapshot:
    """Say what a dataset would hold now. Reads counters, not samples.

    New is what no run was queued for: a dataset that was frozen before the lights went out does not count.
    """
    usable = loop.ledger.counts(loop.name).usable
    queued = next((r.dataset for r in loop.runs() if r.dataset is not None and r.origin is None), None)
    return Snapshot(usable=usable, new=max(0, usable - (loop.ledger.get(Dataset, queued).collected if queued else 0)))


def freeze(loop: Loop, run: Run) -> Dataset | str:
    """Write a version out, train and holdout apart, and record it; or say why that could not be done.

    Whatever goes wrong here (a recipe that cannot write its rows, a full disk, a store that is away) fails
    this run, and is not met again at every turn.
    """
    try:
        return _freeze(loop, run)
    except Stale:
        raise
    except Exception as e:
        log.exception("no dataset could be made of the samples of %s", loop.name)
        said = str(e) if isinstance(e, EvergreenError) else f"{type(e).__name__}: {e}"
        return f"no dataset could be made of the samples: {said}"


def _freeze(loop: Loop, run: Run) -> Dataset:
    """Take sides, lay down files, store them by what they hold.

    Samples that are on no side yet get one, for ever: the newest part of what came since the last
    version is held out, the rest teaches (Bergmeir and Benítez 2012 on why not at random for series).
    """
    collected = loop.ledger.counts(loop.name).usable  # counted first: what comes meanwhile is new, if anything
    newest = next(loop.ledger.samples(loop.name, origin=run.origin, newest_first=True, limit=1), None)
    if newest is None:
        raise InvalidInput("there are no samples to train on", field="samples")
    _take_sides(loop, newest.seq, run.origin)
    folder = Path(tempfile.mkdtemp(prefix="freeze-", dir=_work(loop)))
    try:
        counts = _write(loop, newest.seq, run.origin, folder)
        digest = digest_of(folder)
        key = f"datasets/{loop.name}/{digest[:16]}"
        loop.store.put(key, folder)  # the same content is stored once
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with loop.ledger.together():
        last = loop.ledger.last(Dataset, loop.name)
        if last is not None and (last.digest, last.origin, last.collected) == (digest, run.origin, collected):
            return last  # it was frozen before, and the lights went out before the run was queued
        frozen = Dataset(
            id=loop.new_id(),
            loop=loop.name,
            version=last.version + 1 if last else 1,
            as_of=newest.seq,
            collected=collected,
            train=counts["train"],
            holdout=counts["holdout"],
            digest=digest,
            key=key,
            origin=run.origin,
            details=counts,
        )
        return loop.ledger.add(frozen, by="dataset", because=run.why)


def _take_sides(loop: Loop, upto: int, origin: str | None) -> None:
    """Hold out the newest of what is on no side yet, so many that over all versions the share comes out."""
    share = loop.config.dataset.holdout
    with loop.ledger.together():
        seqs = loop.ledger.unsided(loop.name, upto=upto, origin=origin)
        if not seqs:
            return
        before = max(0, loop.ledger.counts(loop.name, origin=origin).usable - len(seqs))
        held = min(len(seqs), floor(share * (before + len(seqs)) + 0.5) - floor(share * before + 0.5))
        cut = seqs[len(seqs) - held - 1] if held < len(seqs) else 0
        loop.ledger.take_sides(loop.name, holdout_after=cut, upto=upto, origin=origin)


def _write(loop: Loop, upto: int, origin: str | None, folder: Path) -> dict[str, int]:
    """Lay down `train/` and `holdout/`; a held-out row that also stands in the training rows is left out."""
    rules = loop.config.dataset
    for side in ("train", "holdout"):
        (folder / side).mkdir()
    seen: set[bytes] = set()
    train = (s for s in _newest(loop, "train", upto, origin, rules.max_train) if s.weight > 0)
    n_train = loop.recipe.write(_remember(_rows(train), seen), folder / "train", "train")
    told = "origin" in loop.config.gate.slices
    held = list(_rows(_newest(loop, "holdout", upto, origin, rules.max_holdout), origins=told))
    vouched = [row for row in held if loop.recipe.judges(row)]
    unseen = [row for row in vouched if _content(row) not in seen]
    n_holdout = loop.recipe.write(unseen, folder / "holdout", "holdout")
    counts = {
        "train": n_train,
        "holdout": n_holdout,
        "holdout_not_vouched_for": len(held) - len(vouched),
        "holdout_also_in_train": len(vouched) - len(unseen),
    }
    (folder / "dataset.json").write_text(json.dumps({"loop": loop.name, **counts}, indent=1))
    return counts


def _newest(loop: Loop, side: str, upto: int, origin: str | None, limit: int | None) -> Iterable[Sample]:
    """Return the newest samples of a side, in the order in which they came."""
    read = loop.ledger.samples
    if limit is None:
        return read(loop.name, side="train" if side == "train" else "holdout", upto=upto, origin=origin)
    newest: deque[Sample] = deque()
    for sample in read(
        loop.name,
        side="train" if side == "train" else "holdout",
        upto=upto,
        origin=origin,
        newest_first=True,
        limit=limit,
    ):
        newest.appendleft(sample)
    return newest


def _rows(samples: Iterable[Sample], *, origins: bool = False) -> Iterator[Row]:
    for s in samples:
        at = s.at.timestamp() if s.at else None
        yield Row(s.id, s.input, s.label, s.weight, s.group, at, s.origin if origins else None)


def _remember(rows: Iterable[Row], seen: set[bytes]) -> Iterator[Row]:
    for row in rows:
        seen.add(_content(row))
        yield row


def _content(row: Row) -> bytes:
    return hashlib.blake2b(msgspec.json.encode((row.input, row.label)), digest_size=12).digest()


def _work(loop: Loop) -> Path:
    """Return the folder to work in, rid of what was left there by a process that was killed a day ago or longer."""
    folder = loop.state / "work"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        with suppress(FileNotFoundError):  # its owner has just finished
            if left.stat().st_mtime < loop.now().timestamp() - _DAY_S:
                shutil.rmtree(left, ignore_errors=True)
    return folder
