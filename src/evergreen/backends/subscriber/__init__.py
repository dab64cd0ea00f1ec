"""Who is told what happens, and how every subscriber of ours puts it into words."""

from __future__ import annotations

import os
from collections.abc import Mapping

from evergreen.core.errors import ConfigError, NotFound
from evergreen.core.ports import Ledger
from evergreen.core.records import Event, Json, Model

#: Kinds of events that want a person's eye.
FOR_PEOPLE = (
    "alarm",
    "all clear",
    "drift",
    "training failed",
    "new champion",
    "rolled back",
    "model rejected",
    "model undecided",
    "cannot judge",
    "upload failed",
    "not told",
    "test",
)


def secret(name: str, what: str) -> str:
    """Return the value of a variable of the environment. Raises `ConfigError`, which never shows a value."""
    value = os.environ.get(name, "").strip()
    if not value:
        raise ConfigError(
            f"{what} is to come from the variable {name}, which is not set",
            hint=f"Set {name}.",
        )
    return value


def from_environment(text: str, what: str) -> str:
    """Return a setting, or what stands in the variable that `env:NAME` names."""
    return secret(text.removeprefix("env:"), what) if text.startswith("env:") else text


def named(*texts: str) -> tuple[str, ...]:
    """Return the names of the variables that settings refer to."""
    return tuple(text.removeprefix("env:") for text in texts if text.startswith("env:"))


def model_of(event: Event, look: Ledger) -> Model | None:
    """Return the model that an event is about, if it is about one that is still known."""
    if event.noun != "model":
        return None
    try:
        return look.get(Model, event.about)
    except NotFound:
        return None


def title(event: Event, look: Ledger) -> str:
    """Say in a few words what happened: "shop: new champion v3"."""
    model = model_of(event, look)
    return f"{event.loop}: {event.kind}{f' v{model.version}' if model else ''}"


def body(event: Event, look: Ledger) -> str:
    """Say why, and what was measured."""
    lines = [event.because or event.kind]
    model = model_of(event, look)
    if model is not None and model.scores:
        measured = ", ".join(f"{name} {value:.4g}" for name, value in model.scores.items())
        lines.append(f"On the holdout: {measured}.")
    if model is not None and "share" in event.details:
        lines.append(f"Share of the traffic: {event.details['share']:.0%}.")
    when = f", {event.at:%Y-%m-%d %H:%M:%S} UTC" if event.at else ""
    lines.append(f"By {event.by}{when}. Event {event.seq}.")
    return "\n".join(lines)


def plain(event: Event, look: Ledger) -> dict[str, Json]:
    """Return an event as JSON, the model it is about beside it."""
    model = model_of(event, look)
    about: Mapping[str, Json] | None = None
    if model is not None:
        about = {
            "id": model.id,
            "version": model.version,
            "state": model.state.value,
            "share": model.share,
            "scores": dict(model.scores),
        }
    return {
        "id": event.id,
        "seq": event.seq,
        "at": event.at.isoformat() if event.at else None,
        "loop": event.loop,
        "kind": event.kind,
        "what": event.what,
        "subject": event.subject,
        "from": event.frm,
        "to": event.to,
        "by": event.by,
        "because": event.because,
        "details": dict(event.details),
        "title": title(event, look),
        "model": about,
    }
