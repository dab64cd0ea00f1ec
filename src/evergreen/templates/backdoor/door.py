"""Backdoor AI's own paths and shared files, in front of a loop that is like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from pydantic import Field

from evergreen.core.errors import ConfigError
from evergreen.core.loop import Loop
from evergreen.core.recipe import PluginOptions

if TYPE_CHECKING:
    from evergreen.http.hot import Claim
    from evergreen.http.serving import Serving
    from evergreen.http.ways import Way

#: A product that shows changes late is looked into no more often than this, in seconds, however late it shows them.
_SLOWEST_S = 30.0


class DoorOptions(PluginOptions):
    """Settings of the door."""

    loop: str = "intent"
    """The loop that it is about."""
    url: str = ""
    """Address by which phones reach the app, for download links; the one that was called if empty."""
    look: float = Field(3.0, gt=0)
    """Seconds between two looks into the shared folder; more where the product shows changes late."""


class BackdoorDoor:
    """Lets phones, scripts and notebooks of Backdoor AI go on as before."""

    Options = DoorOptions

    def __init__(self, options: DoorOptions, *, home: Path) -> None:
        self.options = options
        self.home = home
        self._rounds: Rounds | None = None
        #: What is answered on the fast path; complete once `routes` was called.
        self.hot: Mapping[tuple[str, str], Claim] = {}

    def settings(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Leave the settings as they are; the loop must be there."""
        if self.options.loop not in raw.get("loops", {}):
            raise ConfigError(
                f'the door "backdoor" is about the loop "{self.options.loop}", and there is none',
                field=f"loops.{self.options.loop}",
                hint=f"Add [loops.{self.options.loop}.recipe] to evergreen.toml, or lay the template down anew.",
            )
        return raw

    def watch(self, loop: Loop) -> None:
        """Look into the shared folder when it is time. Never waits for it; raises what went wrong the last time."""
        if loop.name != self.options.loop:
            return
        if self._rounds is None:
            self._rounds = Rounds(loop, look_of(self.options.url), every_s=self.options.look)
        self._rounds.turn()

    def routes(self, serving: Serving) -> list[Way]:
        """Return the app's own paths and its page for trainings."""
        from evergreen.templates.backdoor import admin
        from evergreen.templates.backdoor.answers import Answers

        answers = Answers(serving, self.options.loop, self.options.url)
        self.hot = answers.hot()
        return [*answers.routes(), *admin.routes(serving, self.options.loop)]


class Rounds:
    """Looks into a shared folder now and then, in a thread of its own: a slow product holds nobody up."""

    def __init__(
        self,
        loop: Loop,
        look: Callable[[Loop], None],
        *,
        every_s: float,
        clock: Callable[[], float] = monotonic,
        begin: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._loop = loop
        self._look = look
        self._every_s = max(every_s, min(loop.store.staleness_s, _SLOWEST_S))
        self._clock = clock
        self._begin = begin or _in_thread
        self._busy = False
        self._next = float("-inf")
        self._trouble: Exception | None = None

    def turn(self) -> None:
        """Begin a look if it is time and none is under way; raise what the last one raised."""
        if self._busy:
            return
        trouble, self._trouble = self._trouble, None
        if self._clock() >= self._next:
            self._busy = True
            self._begin(self._once)
        if trouble is not None:
            raise trouble

    def _once(self) -> None:
        try:
            self._look(self._loop)
        except Exception as e:  # noqa: BLE001 - raised at the next turn, where it is logged once
            self._trouble = e
        finally:
            self._next = self._clock() + self._every_s
            self._busy = False


def look_of(url: str) -> Callable[[Loop], None]:
    """Return one look: trigger files first, then what is published. One's trouble does not stop the other.

    So a trigger is answered one look after what came of it was published: by then also those who see the folder
    late can see it.
    """
    from evergreen.templates.backdoor import publishing
    from evergreen.templates.backdoor.triggers import Triggers

    triggers = Triggers(published=publishing.done)

    def look(loop: Loop) -> None:
        try:
            triggers.look(loop)
        finally:
            publishing.look(loop, url)

    return look


def _in_thread(act: Callable[[], None]) -> None:
    Thread(target=act, name="shared folder", daemon=True).start()
