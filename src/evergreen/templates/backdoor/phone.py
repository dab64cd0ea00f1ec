"""The CoreML file of a version, on this machine's disk: fetched once, checked, handed out from there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from evergreen.core.errors import NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Model
from evergreen.core.states import ModelState

#: Endings of files that phones run, the best first.
SUFFIXES = (".mlmodel", ".mlpackage", ".onnx")


@dataclass(frozen=True)
class Export:
    """A file for phones."""

    path: Path
    name: str  #: as it was called in the artifact
    sha256: str
    size: int


def of(loop: Loop, name: str, model: Model) -> Export:
    """Return the file of a version; raises `NotFound` that says why there is none.

    It is taken out of the artifact once: out of the one that is served from, or else fetched from the store.
    """
    kept = _place(loop, model)
    if not kept.is_dir():
        _fetch(loop, name, model, kept)
    path = next(kept.iterdir())
    digest, _, own = path.name.partition("-")
    return Export(path, own, digest, path.stat().st_size)


def forget(loop: Loop, model: Model) -> None:
    """Let go of the copy of a version whose files were deleted."""
    shutil.rmtree(_place(loop, model), ignore_errors=True)


def exported(model: Model) -> bool:
    """Say whether a version has a file for phones, as far as its training has told."""
    return bool(model.details.get("exports"))


def _place(loop: Loop, model: Model) -> Path:
    return loop.state / "phone" / model.id


def _fetch(loop: Loop, name: str, model: Model, kept: Path) -> None:
    """Lay the one file down, complete or not at all; its name tells its sha256."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=kept.parent) as work:
        artifact = loop.state / "cache" / model.key
        if not artifact.is_dir():
            artifact = Path(work) / "artifact"
            try:
                loop.store.get(model.key, artifact)
            except NotFound as e:
                raise NotFound(f"the files of version {name} are not kept any more", field="version") from e
        found = _best(artifact / "exports")
        if found is None:
            raise NotFound(f"version {name} has no file for phones: {_why_not(model)}", field="version")
        with found.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        draft = Path(work) / "draft"
        draft.mkdir()
        shutil.copyfile(found, draft / f"{digest}-{found.name}")
        try:
            os.rename(draft, kept)
        except OSError:
            if not kept.is_dir():  # else another thread was quicker
                raise


def _best(exports: Path) -> Path | None:
    files = [path for path in sorted(exports.glob("*")) if path.is_file()]
    return next((path for suffix in SUFFIXES for path in files if path.suffix == suffix), None)


def _why_not(model: Model) -> str:
    said = model.details.get("export_error")
    if said:
        return str(said)
    return "its training left none" if model.state is not ModelState.CANDIDATE else "it is not judged yet"
