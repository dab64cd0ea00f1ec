"""PARIMA's own config.json, history log and HTTP paths, in front of a loop that is like any other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.core.config import RolloutConfig
from evergreen.core.errors import ConfigError
from evergreen.core.loop import Loop
from evergreen.core.recipe import PluginOptions
from evergreen.templates.parima import settings
from evergreen.templates.parima.history import History
from evergreen.templates.parima.settings import TrainingSettings

if TYPE_CHECKING:
    from evergreen.http.hot import Claim
    from evergreen.http.serving import Serving
    from evergreen.http.ways import Way

#: A rollout lasts at most this part of the time between two trainings.
_PART = 2


class DoorOptions(PluginOptions):
    """Settings of the door."""

    config: str = "config.json"
    """File with the key `parima.training`, relative to the project's folder."""
    loop: str = "parima"
    """The loop that it is about."""


class ParimaDoor:
    """Lets the users of the hand-built PARIMA backend go on as before."""

    Options = DoorOptions

    def __init__(self, options: DoorOptions, *, home: Path) -> None:
        self.options = options
        self._home = home
        self.training = settings.read(home / options.config)
        self.history = History(home / self.training.training_log_file, self.training.log_file)
        #: What is answered on the fast path; complete once `routes` was called.
        self.hot: Mapping[tuple[str, str], Claim] = {}

    def settings(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Lay config.json over the settings of the loop; where both say something, config.json wins."""
        loops = raw.get("loops", {})
        name = self.options.loop
        if name not in loops:
            raise ConfigError(
                f'the door "parima" is about the loop "{name}", and there is none',
                field=f"loops.{name}",
                hint=f"Add [loops.{name}.recipe] to evergreen.toml, or lay the template down anew.",
            )
        mine = _merged(loops[name], settings.overlay(self._named_alike()))
        return {
            **raw,
            "loops": {**loops, name: _hurried(mine, timedelta(hours=self.training.auto_train_interval_hours))},
        }

    def _named_alike(self) -> TrainingSettings:
        """Call the log as a training calls it that is given the same file, so that both mean the same rows."""
        path = Path(os.path.normpath(self._home / self.training.log_file))
        name = path.relative_to(self._home).as_posix() if path.is_relative_to(self._home) else str(path)
        return self.training.model_copy(update={"log_file": name})

    def watch(self, loop: Loop) -> None:
        """Write what happened into the history log."""
        if loop.name == self.options.loop:
            self.history.write(loop)

    def routes(self, serving: Serving) -> list[Way]:
        """Return PARIMA's own paths."""
        from evergreen.templates.parima.answers import Answers

        answers = Answers(serving, self.options.loop, self.training)
        self.hot = answers.hot()
        return answers.routes()


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge tables; sources are added to those that are there, anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            merged[key] = _merged(known, value)
        elif key == "sources" and isinstance(known, list):
            merged[key] = [*value, *(source for source in known if source not in value)]
        else:
            merged[key] = value
    return merged


def _hurried(loop: dict[str, Any], every: timedelta) -> dict[str, Any]:
    """Let a rollout end before the next training does: else each model would be overtaken before it is live."""
    try:
        rollout = RolloutConfig.model_validate(loop.get("rollout", {}))
    except ValueError:
        return loop  # told where the whole file is checked
    longest = every / (_PART * len(rollout.steps))
    if rollout.hold <= longest:
        return loop
    return {**loop, "rollout": {**loop.get("rollout", {}), "hold": longest}}
