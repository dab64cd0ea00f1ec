"""Stage 2. Samples become a dataset: numbered, immutable, its holdout never seen by any training."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from evergreen.core.errors import InvalidInput
from evergreen.core.loop import Loop
from evergreen.core.recipe import Row
from evergreen.core.records import Dataset, Run, Sample, Snapshot


def latest(loop: Loop) -> Snapshot:
    """Say what a dataset would hold now. Reads counters, not samples.

    New is what no run was queued for: a dataset that was frozen before the lights went out does not count.
    """
    usable = loop.ledger.counts(loop.name).usable
    runs = loop.ledger.find(Run, loop.name, newest_first=True)
    last = next((r.dataset for r in runs if r.dataset is not None and r.origin is None), None)
    return Snapshot(usable=usable, new=usable - (loop.ledger.get(Dataset, last).collected if last else 0))


def freeze(loop: Loop, run: Run) -> Dataset:
    """Write a version out, train and holdout apart, and record it. The same content is stored once.

    Samples that are on no side yet get one, for ever: the newest part of what came since the last
    version is held out, the rest teaches (Bergmeir and Benítez 2012 on why not at random for series).
    """
    newest = next(loop.ledger.samples(loop.name, origin=run.origin, newest_first=True, limit=1), None)
    if newest is None:
        raise InvalidInput("there are no samples to train on", field="samples")
    _take_sides(loop, newest.seq, run.origin)
    folder = Path(tempfile.mkdtemp(prefix="freeze-", dir=_work(loop)))
    try:
        counts = _write(loop, newest.seq, run.origin, folder)
        digest = _digest(folder)
        known = _known(loop, digest, run.origin)
        if known is not None:
            return known
        key = f"datasets/{loop.name}/{digest[:16]}"
        loop.store.put(key, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    last = loop.ledger.last(Dataset, loop.name)
    frozen = Dataset(
        id=loop.new_id(),
        loop=loop.name,
        version=last.version + 1 if last else 1,
        as_of=newest.seq,
        collected=loop.ledger.counts(loop.name).usable,
        train=counts["train"],
        holdout=counts["holdout"],
        digest=digest,
        key=key,
        origin=run.origin,
        details=counts,
    )
    return loop.ledger.add(frozen, by="dataset", because=run.why)


def _take_sides(loop: Loop, upto: int, origin: str | None) -> None:
    seqs = loop.ledger.unsided(loop.name, upto=upto, origin=origin)
    if seqs:
        held = round(len(seqs) * loop.config.dataset.holdout)
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
    held = list(_rows(_newest(loop, "holdout", upto, origin, rules.max_holdout)))
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


def _rows(samples: Iterable[Sample]) -> Iterator[Row]:
    for s in samples:
        yield Row(s.id, s.input, s.label, s.weight, s.group, s.at.timestamp() if s.at else None)


def _remember(rows: Iterable[Row], seen: set[bytes]) -> Iterator[Row]:
    for row in rows:
        seen.add(_content(row))
        yield row


def _content(row: Row) -> bytes:
    return hashlib.blake2b(msgspec.json.encode((row.input, row.label)), digest_size=12).digest()


def _digest(folder: Path) -> str:
    """Hash every file by name and content."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{inner}\n".encode())
    return total.hexdigest()


def _known(loop: Loop, digest: str, origin: str | None) -> Dataset | None:
    last = loop.ledger.last(Dataset, loop.name)
    return last if last is not None and last.digest == digest and last.origin == origin else None


def _work(loop: Loop) -> Path:
    folder = loop.state / "work"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
