"""Models that devices send: examined in a cell, kept with what was made of them, or refused with the reason."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from evergreen.core import plugins
from evergreen.core.errors import Conflict, InvalidInput, MissingExtra, NotFound, TooLarge
from evergreen.core.loop import Loop
from evergreen.core.recipe import read_rows
from evergreen.core.records import Dataset, Json, Upload
from evergreen.core.states import UploadState
from evergreen.job.cell import Examined, Limits, examine

_ROWS = 300
_STALE_S = 3600.0
_ABOUT = 20_000  # characters


def receive(
    loop: Loop,
    file: Path,
    *,
    name: str,
    by: str = "collect",
    subject: str | None = None,
    description: str = "",
    about: Mapping[str, Json] | None = None,
) -> Upload:
    """Examine a file that a device sent; keep it as a model that waits for the next training.

    `name` is what the device calls it. The same file twice is one upload: the first one's record is returned.
    Raises `InvalidInput` with the reason for a file that cannot be used, of which nothing is kept but a line of history.
    """
    called = _name(name)
    _check(subject, description, about)
    digest = None
    try:
        size = _sized(file, loop.config.collect.max_upload)
        format = _format(called)
        digest = _sha256(file)
        if (known := _known(loop, digest)) is not None:
            return known
        sent = _Sent(file, called, format, digest, size, subject, description, about or {})
        with _workplace(loop) as place:
            return _taken(loop, sent, place, by)
    except InvalidInput as e:
        details = {"name": called, "sha256": digest, "hint": e.hint}
        loop.ledger.note(loop.name, "upload refused", by=by, because=str(e), details=details)
        raise


def received(loop: Loop, *, limit: int | None = None) -> Sequence[Upload]:
    """List models from devices, the newest first."""
    return loop.ledger.find(Upload, loop.name, newest_first=True, limit=limit)


def why(upload: Upload) -> str:
    """Say in a sentence how an upload stands."""
    if upload.state is UploadState.PENDING:
        return "waits for the next training"
    if upload.state is UploadState.PROCESSING:
        return f"run {upload.run} has it"
    if upload.state is UploadState.INCORPORATED:
        return f"its vote weighs {upload.weight or 0:.3g} in model {upload.model}"
    return upload.error or "it could not be used"


@dataclass(frozen=True)
class _Sent:
    """A file and what was said of it."""

    file: Path
    name: str
    format: str
    sha256: str
    size: int
    subject: str | None
    description: str
    about: Mapping[str, Json]


def _taken(loop: Loop, sent: _Sent, place: Path, by: str) -> Upload:
    """Examine, store, write down; what was stored and could not be written down goes again."""
    found = _examined(loop, sent, place)
    key = f"uploads/{loop.name}/{sent.sha256[:32]}"
    upload = Upload(
        id=_id(loop, sent.sha256),
        loop=loop.name,
        state=UploadState.PENDING,
        name=sent.name,
        format=sent.format,
        sha256=sent.sha256,
        size=sent.size,
        key=key,
        subject=sent.subject,
        description=sent.description,
        scores=found.scores,
        details={**_told(found), **({"about": dict(sent.about)} if sent.about else {})},
    )
    _store(loop, key, place / "kept")
    try:
        return loop.ledger.add(upload, by=by, because=_sentence(found))
    except BaseException:
        if (known := _known(loop, sent.sha256)) is not None:
            return known  # somebody sent it at the same time, and was faster; the files are the same
        with suppress(Exception):
            loop.store.delete(key)
        raise


def _examined(loop: Loop, sent: _Sent, place: Path) -> Examined:
    """Examine a file, and lay down what is to be kept of it."""
    collect = loop.config.collect
    original = place / "kept" / "original" / sent.name
    original.parent.mkdir(parents=True)
    shutil.copyfile(sent.file, original)
    if _sha256(original) != sent.sha256:
        raise InvalidInput("the file changed while it was read", field="model")
    limits = Limits(
        file_mb=collect.max_upload / 2**20,
        seconds=collect.upload_time.total_seconds(),
        memory_mb=collect.upload_memory_mb,
        ms_per_answer=collect.upload_latency_ms,
        rows=_ROWS,
    )
    recipe, rows, out = loop.config.recipe.model_dump(), _holdout(loop, place), place / "kept" / "model"
    return examine(original, format=sent.format, recipe=recipe, rows=rows, out=out, limits=limits)


def _holdout(loop: Loop, place: Path) -> Path | None:
    """Fetch the first rows of the newest dataset's holdout, if there is one."""
    newest = loop.ledger.last(Dataset, loop.name)
    if newest is None:
        return None
    try:
        loop.store.get(newest.key, place / "dataset")
        rows = list(islice(read_rows(place / "dataset" / "holdout" / "holdout.jsonl"), _ROWS))
    except (NotFound, FileNotFoundError):
        return None
    finally:
        shutil.rmtree(place / "dataset", ignore_errors=True)
    few = place / "holdout.jsonl"
    few.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return few if rows else None


def _store(loop: Loop, key: str, folder: Path) -> None:
    """Store what is kept. What an examination that was cut off left there before, with no record of it, is replaced."""
    try:
        loop.store.put(key, folder)
    except Conflict:
        loop.store.delete(key)
        loop.store.put(key, folder)


@contextmanager
def _workplace(loop: Loop) -> Iterator[Path]:
    """Lend a folder that is gone afterwards; those that a killed process left are removed."""
    home = loop.state / "uploads"
    home.mkdir(parents=True, exist_ok=True)
    for old in home.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _STALE_S:
                shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="upload-", dir=home, ignore_cleanup_errors=True) as place:
        yield Path(place)


def _known(loop: Loop, digest: str) -> Upload | None:
    try:
        return loop.ledger.get(Upload, _id(loop, digest))
    except NotFound:
        return None


def _id(loop: Loop, digest: str) -> str:
    return hashlib.sha256(f"{loop.name}/{digest}".encode()).hexdigest()[:32]


def _name(said: str) -> str:
    """Keep of a name what is one: no folders, nothing unprintable."""
    last = said.replace("\\", "/").rpartition("/")[2]
    kept = "".join(c for c in last if c.isalnum() or c in "._- ").strip(" .")
    return kept[-100:] or "model"


def formats() -> Mapping[str, str]:
    """Say which plugin reads a file, by the ending of its name."""
    found = {}
    for plugin in plugins.names("formats"):
        with suppress(MissingExtra):
            found.update(dict.fromkeys(plugins.load("formats", plugin).suffixes, plugin))
    return found


def _format(name: str) -> str:
    known = formats()
    format = known.get(Path(name).suffix.lower())
    if format is None:
        raise InvalidInput(
            f"{name} is of no kind that is known",
            field="model",
            hint=f"Send a file whose name ends with one of: {', '.join(sorted(known))}",
        )
    return format


def _sized(file: Path, most: int) -> int:
    """Return the size of a file, which must be one. Raises `InvalidInput`, `TooLarge`."""
    try:
        about = file.lstat()
    except OSError as e:
        raise InvalidInput(f"the file cannot be opened: {e.strerror}", field="model") from e
    if not stat.S_ISREG(about.st_mode):
        raise InvalidInput("this is not a file", field="model")
    if not about.st_size:
        raise InvalidInput("the file is empty", field="model")
    if about.st_size > most:
        raise TooLarge(
            f"the file has {about.st_size} bytes; {most} are allowed", field="model", hint="collect.max_upload sets it."
        )
    return about.st_size


def _check(subject: str | None, description: str, about: Mapping[str, Json] | None) -> None:
    if len(description) > 2000 or "\0" in description:
        raise InvalidInput("description is not a text of up to 2000 characters", field="description")
    if subject is not None and (not 0 < len(subject) <= 200 or "\0" in subject):
        raise InvalidInput("subject is not a text of 1 to 200 characters", field="subject")
    if about and len(msgspec.json.encode(dict(about))) > _ABOUT:
        raise InvalidInput(f"what is told of the model has more than {_ABOUT} bytes", field="about")


def _sha256(file: Path) -> str:
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as read:
        return hashlib.file_digest(read, "sha256").hexdigest()


def _told(found: Examined) -> dict[str, Json]:
    asked = found.interface
    return {
        "kind": asked.kind,
        "labels": list(asked.labels),
        "width": len(asked.names) or asked.width,
        "ms_per_answer": round(found.ms_per_answer, 3),
        **found.details,
        "made_by": dict(asked.about),
    }


def _sentence(found: Examined) -> str:
    scores = ", ".join(f"{name} {figure:.3f}" for name, figure in found.scores.items())
    return f"a model of {len(found.interface.labels)} labels: {scores or 'no holdout to score it on yet'}"
