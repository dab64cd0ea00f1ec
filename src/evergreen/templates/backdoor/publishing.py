"""What the app lays into the shared folder for people, phones and notebooks: versions, reports, CoreML files, its state."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from evergreen.core.errors import Corrupt, EvergreenError, NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Model, Run, Upload
from evergreen.core.states import ModelState, RunState, UploadState
from evergreen.stages import dataset, retain
from evergreen.templates.backdoor import folder, jobs, phone, report, versions

log = logging.getLogger(__name__)

_SCOPE = "backdoor-published"
#: What is remembered of a version in place of its files once they are gone.
_WITHDRAWN = "[]"
#: Larger files for phones stay where the training put them, in bytes.
_LARGEST = 64 * 1024 * 1024
_PICTURES = (".png", ".svg")


def look(loop: Loop, url: str = "") -> None:
    """Write what is new: each version once it is settled, the list of versions, the newest, and the state.

    A version is `done` once all of these tell of it. One that cannot be written now does not stop the others.
    """
    figures = state(loop, url)  # read first, written last: what it calls completed is there when it can be read
    known, told = versions.all_of(loop), loop.ledger.recall_all(_SCOPE)
    fresh: dict[str, list[str]] = {}
    trouble: Exception | None = None
    for name, model in known:
        if model.id not in told:
            if jobs.settled(loop, model):
                try:
                    fresh[model.id] = _publish(loop, name, model)
                except (EvergreenError, OSError) as e:
                    trouble = e
        elif told[model.id] != _WITHDRAWN and retain.swept(loop, model):
            _withdraw(loop, name, model)
            loop.ledger.remember(_SCOPE, model.id, _WITHDRAWN)
    listed = [{**jobs.model_info(name, m), "kept": not retain.swept(loop, m)} for name, m in reversed(known)]
    write_changed(loop, folder.VERSIONS, {"versions": listed})
    for name, model in known:
        if model.state is ModelState.CHAMPION and (model.id in fresh or model.id in told):
            files = fresh[model.id] if model.id in fresh else json.loads(told[model.id])
            write_changed(loop, folder.LATEST, {**jobs.model_info(name, model), "files": files})
    for id, files in fresh.items():
        loop.ledger.remember(_SCOPE, id, json.dumps(files))
    write_changed(loop, folder.STATE, figures)
    if trouble is not None:
        raise trouble


def done(loop: Loop, model: Model) -> bool:
    """Say whether everything tells of a version that should: whoever looks now finds it."""
    return loop.ledger.recall(_SCOPE, model.id) is not None


def state(loop: Loop, url: str = "") -> dict[str, Json]:
    """Return the figures by which it is decided whether to train, and the rule, for whoever wants to decide the same."""
    rules, now = loop.config.trigger, dataset.latest(loop)
    last = loop.ledger.last(Run, loop.name, RunState.SUCCEEDED)
    newest = jobs.listed(loop, 1)
    champion = versions.champion(loop)
    return {
        "loop": loop.name,
        "url": url or None,
        "interactions": now.usable,
        "new_interactions": now.new,
        "pending_models": len(loop.ledger.find(Upload, loop.name, UploadState.PENDING)),
        "thresholds": {
            "auto": rules.auto,
            "pending_models": rules.pending_models,
            "min_new": rules.min_new,
            "every_hours": rules.every.total_seconds() / 3600 if rules.every else None,
            "min_size": rules.min_size,
        },
        "last_look": _last_look(loop),
        "last_training": last.ended.isoformat() if last and last.ended else None,
        "latest_job": newest[0] if newest else None,
        "model": champion[0] if champion else None,
    }


def write_changed(loop: Loop, key: str, said: Mapping[str, Json]) -> bool:
    """Write an object unless it is there as it is; say whether it was written."""
    data = folder.encoded({"v": 1, **said})
    digest = hashlib.sha256(data).hexdigest()
    if loop.ledger.recall(_SCOPE, key) == digest:
        return False
    loop.store.write(key, folder.encoded({"v": 1, **said, "updated_at": loop.now().isoformat()}))
    loop.ledger.remember(_SCOPE, key, digest)
    return True


def _last_look(loop: Loop) -> str | None:
    """Return when the interval last came round: a training of the app's own was a look, too."""
    said = loop.ledger.recall("looked", loop.name)
    own = next((run.at.isoformat() for run in loop.runs() if run.at and run.by == "trigger"), None)
    return max(filter(None, (said, own)), key=datetime.fromisoformat, default=None)


def _publish(loop: Loop, name: str, model: Model) -> list[str]:
    """Write what a training left; return the keys. Done again after a crash it writes the same."""
    text, files = _recipes_own(loop, model)
    said = report.summary(loop, name, model)
    files |= {"summary.json": folder.encoded(said), "report.md": report.markdown(said, text).encode()}
    try:
        export = phone.of(loop, name, model)
        if export.size <= _LARGEST:
            files[export.name] = export.path.read_bytes()
    except NotFound as e:
        log.info("%s", e)
    place = f"{folder.MODELS}/{name}"
    for file, data in files.items():
        loop.store.write(f"{place}/{file}", data)
    keys = [f"{place}/{file}" for file in sorted(files)]
    info = {**jobs.model_info(name, model), "files": keys, "artifact": model.key}
    loop.store.write(f"{place}/model_info.json", folder.encoded(info))
    return keys


def _withdraw(loop: Loop, name: str, model: Model) -> None:
    """Take the file for phones away when the version's own files are gone; what was written about it stays."""
    for key in loop.store.list(f"{folder.MODELS}/{name}"):
        if key.endswith(phone.SUFFIXES):
            loop.store.delete(key)
    phone.forget(loop, model)


def _recipes_own(loop: Loop, model: Model) -> tuple[str, dict[str, bytes]]:
    """Return the report that the recipe wrote beside what was measured, and its pictures."""
    key = model.details.get("evaluation")
    if not key:
        return "", {}
    work = Path(tempfile.mkdtemp(prefix="report-", dir=_work(loop)))
    try:
        loop.store.get(str(key), work / "evaluation")
        place = work / "evaluation" / "report"
        text = (place / "report.md").read_text(encoding="utf-8") if (place / "report.md").is_file() else ""
        return text, {path.name: path.read_bytes() for path in place.glob("*") if path.suffix in _PICTURES}
    except (NotFound, Corrupt) as e:
        log.info("the report of v%d is not to be had: %s", model.version, e)
        return "", {}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _work(loop: Loop) -> Path:
    place = loop.state / "work"
    place.mkdir(parents=True, exist_ok=True)
    return place
