"""Tells people: mail, chat, phone and a hundred more, through the library `apprise` and its URLs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from evergreen.backends.subscriber import FOR_PEOPLE, body, secret, title
from evergreen.core.errors import ConfigError, MissingExtra, Unavailable
from evergreen.core.ports import Ledger, Store
from evergreen.core.recipe import PluginOptions
from evergreen.core.records import Event

#: How urgent a kind is, in Apprise's words; the others are only information.
_URGENT = {
    "alarm": "failure",
    "training failed": "failure",
    "rolled back": "failure",
    "not told": "failure",
    "drift": "warning",
    "model rejected": "warning",
    "model undecided": "warning",
    "cannot judge": "warning",
    "upload failed": "warning",
    "all clear": "success",
    "new champion": "success",
}


class AppriseOptions(PluginOptions):
    """Whom to tell."""

    urls_env: str = "APPRISE_URLS"
    """Variable of the environment that holds one or more Apprise URLs, parted by blanks: they are credentials, and
    stand nowhere else."""
    timeout_s: float = Field(15.0, gt=0, le=30)
    """Longest wait for each of them, in seconds."""

    @field_validator("urls_env")
    @classmethod
    def _a_name(cls, name: str) -> str:
        if not name.replace("_", "").isalnum():
            raise ValueError("this is the name of a variable, not the URLs themselves")
        return name


class AppriseSubscriber:
    """One message with a title and a body in plain words for each event, to each URL until it takes it."""

    Options: ClassVar[type[PluginOptions]] = AppriseOptions
    kinds = FOR_PEOPLE
    collapse_s = 600.0

    def __init__(self, options: AppriseOptions, *, home: Path, store: Store) -> None:  # noqa: ARG002 - given to all
        if find_spec("apprise") is None:
            raise MissingExtra(
                "the subscriber apprise needs a package that is not installed: apprise",
                hint="pip install 'evergreen-ml[notify]'",
            )
        self._options = options
        self.secrets = (options.urls_env,)
        self._targets: tuple[str, list[Any]] = ("", [])
        self._took: tuple[str, set[int]] = (
            "",
            set(),
        )  # an event, and which URLs took it: they need not hear it again

    def tell(self, event: Event, look: Ledger) -> None:
        """Send an event to everybody. Raises `Unavailable` unless all took it."""
        said, why = title(event, look), body(event, look)
        targets = self._opened()
        if self._took[0] != event.id:
            self._took = (event.id, set())
        took, silent = self._took[1], []
        for n, target in enumerate(targets, start=1):
            if n in took:
                continue
            if target.notify(body=why, title=said, notify_type=_URGENT.get(event.kind, "info")):
                took.add(n)
            else:
                silent.append(f"number {n} ({type(target).__name__})")
        if silent:
            raise Unavailable(f"{len(silent)} of {len(targets)} URLs did not take it: {', '.join(silent)}")

    def _opened(self) -> list[Any]:
        """Return what stands behind the URLs; made anew when the variable has changed. Errors never show a URL."""
        text = secret(self._options.urls_env, "the list of Apprise URLs")
        if self._targets[0] != text:
            import apprise

            asset = apprise.AppriseAsset(app_id="Evergreen", secure_logging=True)
            made: list[Any] = [apprise.Apprise.instantiate(url, asset=asset) for url in text.split()]
            if wrong := [str(n) for n, one in enumerate(made, start=1) if one is None]:
                raise ConfigError(
                    f"URL number {', '.join(wrong)} in {self._options.urls_env} is none that Apprise knows"
                )
            for one in made:
                one.socket_connect_timeout = one.socket_read_timeout = self._options.timeout_s
            self._targets, self._took = (text, made), ("", set())
        return self._targets[1]
