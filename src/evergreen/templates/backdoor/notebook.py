"""The notebook that comes with the template: takes what was triggered, or asks by the same thresholds, trains, reports."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from evergreen import __version__
from evergreen.core import plugins
from evergreen.core.config import store_at
from evergreen.core.errors import NotFound
from evergreen.core.ports import Store
from evergreen.core.records import Json
from evergreen.job.far.notebook import Cell, Plan
from evergreen.job.far.notebook import notebook as made
from evergreen.templates.backdoor import folder

_BEFORE: list[Cell] = [
    (
        "text",
        "## Is a training wanted?\n\nA trigger file that waits is taken. Without one, the app's own thresholds decide.",
    ),
    (
        "code",
        """\
from evergreen.templates.backdoor import notebook as backdoor

wanted = backdoor.wanted(STORE_URL, app_url=APP_URL, force=FORCE)
""",
    ),
]
_AFTER: list[Cell] = [("code", "backdoor.report(STORE_URL)\n")]


def text() -> str:
    """Return the text of `backdoor_ai_trainer.ipynb`."""
    plan = Plan(
        url="",
        package=f"evergreen-ml[intent,dropbox,drive,s3]=={__version__}",
        what="the intents of Backdoor AI",
        more=(
            'APP_URL = ""  # address of the app, to wake it if its host lets it sleep; empty: it is awake\n'
            "FORCE = False  # True: train even if nothing calls for it\n"
        ),
        before=_BEFORE,
        after=_AFTER,
        condition="wanted",
    )
    return made(plan)


def wanted(url: str, *, app_url: str = "", force: bool = False, say: Callable[[str], None] = print) -> bool:
    """Say whether there is something to train, asking for it by a trigger file where the thresholds call for it."""
    if app_url:
        _wake(app_url, say)
    store = _open(url)
    status = folder.training_status(store)
    if status["waiting"]:
        say(f"{status['waiting']} trigger file(s) wait or are at work: training.")
        return True
    if status["state"] is None:
        say("The app has not written into this folder yet. Start it once with the same EVERGREEN_STORE.")
        return False
    why = status["due"] or ("asked for in the notebook" if force else None)
    if why is None:
        say(f"Nothing calls for a training: {_figures(status['state'])}.")
        return False
    key = folder.write_trigger(store, why, force=force, source="notebook")
    say(f"{why}: asked for a training by {key}.")
    return True


def report(url: str, *, patience_s: float = 180.0, say: Callable[[str], None] = print) -> None:
    """Print what came of the newest trigger, and the report on the newest model, as far as the app has written them."""
    store = _open(url)
    deadline = time.monotonic() + patience_s
    status = folder.training_status(store)
    if status["waiting"]:
        say("Waits for the app, which judges the new model and publishes it.")
    while status["waiting"] and time.monotonic() < deadline:
        time.sleep(2)
        status = folder.training_status(store)
    for trigger in status["triggers"][:1]:
        say(f"{trigger['file']}: {trigger.get('status')}. {trigger.get('message') or ''}".rstrip())
    model = status["model"]
    if model is None:
        say("There is no model yet.")
        return
    say(f"Newest version: {model.get('version')}.")
    try:
        say(store.read(f"{folder.MODELS}/{model['version']}/report.md").decode())
    except NotFound:
        say("Its report is not in the folder yet.")


def _open(url: str) -> Store:
    here = Path.cwd()
    store: Store = plugins.make("stores", store_at(url), home=here, state=here / ".evergreen")
    return store


def _wake(app_url: str, say: Callable[[str], None]) -> None:
    """Call the app, which free hosts put to sleep: a call wakes it."""
    if not app_url.startswith(("https://", "http://")):
        say(f"APP_URL is {app_url!r}; it must begin with https:// or http://.")
        return
    try:
        with urllib.request.urlopen(f"{app_url.rstrip('/')}/health", timeout=90) as answer:  # noqa: S310 - checked above
            say(f"The app is awake ({answer.status}).")
    except OSError as e:
        say(f"The app did not answer: {e}. What is done here waits in the folder until it wakes.")


def _figures(state: Mapping[str, Json]) -> str:
    rules = state["thresholds"]
    return (
        f"{state['new_interactions']} new interactions of {rules.get('min_new') or 'any number'} needed, "
        f"{state['pending_models']} uploaded models of {rules.get('pending_models') or 'any number'}"
    )
