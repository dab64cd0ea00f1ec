"""The shared folder as everybody sees it: trigger files, the app's state, the newest version. For app, scripts and notebook alike."""

from __future__ import annotations

import getpass
import json
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evergreen.core import config, plugins
from evergreen.core.errors import ConfigError, Corrupt, NotFound
from evergreen.core.ports import Store
from evergreen.core.records import Json
from evergreen.stages import trigger

#: Trigger files lie here, and are called training_needed….json.
TRIGGERS, PREFIX, SUFFIX = "training_triggers", "training_needed", ".json"
#: What the app writes for those who look in from outside.
STATE, LATEST, VERSIONS = "backdoor/state.json", "backdoor/latest.json", "backdoor/versions.json"
#: What a training left for people and phones, by version.
MODELS = "backdoor/models"
#: Trigger files that a status tells of.
_SHOWN = 10
_UNDER_WAY = ("pending", "processing", "training")


def open_store(home: Path | None = None) -> Store:
    """Open the folder that EVERGREEN_STORE names, or else the one of the project in `home` (here, if not given).

    Raises `ConfigError`. Reads credentials from the environment only; opens no ledger.
    """
    home = (home or Path.cwd()).resolve()
    place, state = os.environ.get("EVERGREEN_STORE"), home / ".evergreen"
    if place:
        use = config.store_at(place)
    elif (home / "evergreen.toml").is_file():
        said = config.parse(config.read(home / "evergreen.toml"))
        use, state = said.store, home / said.state
    else:
        raise ConfigError(
            "which folder? EVERGREEN_STORE is not set, and there is no evergreen.toml here",
            field="EVERGREEN_STORE",
            hint="Set it to a URL, for example dropbox:///backdoor, gdrive:///backdoor, s3://bucket/backdoor "
            "or file:///path.",
        )
    store: Store = plugins.make("stores", use, home=home, state=state)
    return store


def write_trigger(
    store: Store,
    reason: str,
    *,
    force: bool = False,
    source: str = "script",
    triggered_by: str | None = None,
    now: datetime | None = None,
) -> str:
    """Ask for a training by a new file in the folder; return its key. The app takes it from there."""
    now = now or datetime.now(UTC)
    request = {
        "created_at": now.isoformat(timespec="seconds"),
        "reason": reason,
        "force": force,
        "status": "pending",
        "source": source,
        "triggered_by": triggered_by or somebody(),
    }
    while True:
        key = f"{TRIGGERS}/{PREFIX}_{now:%Y%m%dT%H%M%SZ}_{secrets.token_hex(3)}{SUFFIX}"
        if store.put_new(key, encoded(request)):
            return key


def is_trigger(key: str) -> bool:
    """Say whether a key is that of a trigger file.

    >>> is_trigger("training_triggers/training_needed.json"), is_trigger("training_triggers/refused/x.json")
    (True, False)
    """
    folder, _, name = key.rpartition("/")
    return folder == TRIGGERS and name.startswith(PREFIX) and name.endswith(SUFFIX)


def due(state: Mapping[str, Json], now: datetime | None = None) -> str | None:
    """Return the reason why a training is due by the app's own rule and figures, or None.

    `state` is what the app wrote into `backdoor/state.json`: so a notebook can ask for a training while the app sleeps.
    """
    job = state.get("latest_job") or {}
    if job.get("status") in _UNDER_WAY:
        return None
    now = now or datetime.now(UTC)
    rules = state["thresholds"]
    every = rules.get("every_hours")
    decision = trigger.due(
        config.TriggerConfig(
            auto=True,
            every=timedelta(hours=every) if every else None,
            min_new=rules.get("min_new"),
            pending_models=rules.get("pending_models"),
            min_size=rules.get("min_size") or 1,
        ),
        trigger.Facts(
            usable=state["interactions"],
            new=state["new_interactions"],
            since_look=_since(state.get("last_look"), now),
            since_start=None,
            pending=state["pending_models"],
        ),
    )
    return decision.because if decision.train else None


def training_status(store: Store) -> dict[str, Json]:
    """Return what the folder tells: the app's state, the newest version, the newest trigger files."""
    keys = [key for key in store.list(TRIGGERS) if is_trigger(key)]
    triggers = []
    for key in keys:
        try:
            triggers.append({"file": key, "status": "pending", **read(store, key)})
        except (NotFound, Corrupt) as e:
            triggers.append({"file": key, "status": "unreadable", "message": str(e)})
    triggers.sort(key=lambda t: str(t.get("created_at") or ""), reverse=True)
    state = _read_or_none(store, STATE)
    return {
        "state": state,
        "model": _read_or_none(store, LATEST),
        "triggers": triggers[:_SHOWN],
        "waiting": sum(t.get("status") in _UNDER_WAY for t in triggers),
        "due": due(state) if state else None,
    }


def read(store: Store, key: str) -> dict[str, Json]:
    """Read an object that holds a JSON object. Raises `NotFound`, `Corrupt`."""
    try:
        found = json.loads(store.read(key))
    except (ValueError, RecursionError) as e:
        raise Corrupt(f"{key} is not JSON: {e}") from e
    if not isinstance(found, dict):
        raise Corrupt(f"{key} is not a JSON object")
    return found


def encoded(said: Mapping[str, Any]) -> bytes:
    """Return the text of a file that people read, too."""
    return json.dumps(said, indent=2, ensure_ascii=False, default=str).encode() + b"\n"


def somebody() -> str:
    """Name who runs this."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody"


def _read_or_none(store: Store, key: str) -> dict[str, Json] | None:
    try:
        return read(store, key)
    except NotFound:
        return None


def _since(said: Json, now: datetime) -> timedelta | None:
    return now - datetime.fromisoformat(said) if said else None
