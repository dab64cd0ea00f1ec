"""Every error Evergreen raises on purpose.

    EvergreenError
    ├── ConfigError            the configuration is wrong                     CLI exit 2, HTTP 400
    │   ├── PluginNotFound     no recipe or backend goes by that name
    │   └── MissingExtra       a package this part needs is not installed
    ├── InvalidInput           what was sent cannot be used                   HTTP 400
    │   └── TooLarge           it is larger than the limit                    HTTP 413
    ├── Unauthorized           a key is needed, or this one is not known      HTTP 401
    ├── Refused                the caller may not do this                     HTTP 403
    │   └── NoConsent          the subject has not agreed
    ├── TooMany                more calls than the caller may make in a while HTTP 429
    ├── NotFound               no such loop, sample, run or model             HTTP 404
    ├── Conflict               the world is not as the caller thought         HTTP 409
    │   ├── IllegalMove        the table of moves does not allow it
    │   ├── Stale              somebody else moved the record first
    │   └── AlreadyWaiting     a training of this loop is waiting or running
    ├── Unavailable            not now; try again                             HTTP 503
    │   ├── NoModel            no model of this loop is in service yet
    │   └── Overloaded         more is waiting than can be held
    ├── PredictionFailed       every model in service failed on an input      HTTP 500
    ├── Corrupt                stored bytes are not what was stored           HTTP 500
    └── JobFailed              the training did not deliver                   run becomes FAILED

The server itself adds `method_not_allowed` (405) and `internal` (500: not on purpose; the log says more).
On the wire each is `{"error": {"code", "message", "field", "hint"}}` with the class's `status`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

FailureKind = Literal["user_code", "lost", "preempted", "cancelled", "configuration", "time_limit"]


class EvergreenError(Exception):
    """Something Evergreen knows how to explain."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "error"
    #: What to do about it, where that is always the same.
    remedy: ClassVar[str] = ""

    def __init__(self, message: str | None = None, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        #: The setting, column or body member that is wrong, if it is one.
        self.field = field
        #: What to do about it.
        self.hint = hint if hint is not None else self.remedy or None


class ConfigError(EvergreenError):
    """The configuration is wrong."""

    status = 400
    code = "config_error"


class PluginNotFound(ConfigError):
    """No recipe or backend goes by that name."""

    code = "plugin_not_found"


class MissingExtra(ConfigError):
    """A package that this part needs is not installed."""

    code = "missing_extra"


class InvalidInput(EvergreenError):
    """What was sent cannot be used."""

    status = 400
    code = "invalid_input"


class TooLarge(InvalidInput):
    """What was sent is larger than the limit."""

    status = 413
    code = "too_large"


class Unauthorized(EvergreenError):
    """This needs a key."""

    status = 401
    code = "unauthorized"
    remedy = "Send `Authorization: Bearer KEY`; `evergreen keys create --role ROLE` makes one."


class Refused(EvergreenError):
    """The caller may not do this."""

    status = 403
    code = "forbidden"


class NoConsent(Refused):
    """The subject has not agreed to the use of this sample."""

    code = "no_consent"


class TooMany(EvergreenError):
    """These are more calls than this caller may make in such a short time."""

    status = 429
    code = "too_many"
    remedy = "Wait as long as Retry-After says. `rate` in [http] sets the limits."

    def __init__(
        self, message: str | None = None, *, field: str | None = None, hint: str | None = None, after_s: float = 1.0
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        #: Seconds until a call will be answered again.
        self.after_s = after_s


class NotFound(EvergreenError):
    """There is no such record."""

    status = 404
    code = "not_found"


class Conflict(EvergreenError):
    """The world is not as the caller thought."""

    status = 409
    code = "conflict"


class IllegalMove(Conflict):
    """The table of moves does not allow this change of state."""

    code = "illegal_move"


class Stale(Conflict):
    """Somebody else moved the record first."""

    code = "stale"
    remedy = "Read it again and decide anew."


class AlreadyWaiting(Conflict):
    """A training of this loop is already waiting or running."""

    code = "already_waiting"
    remedy = "Wait for it, or look at it with `evergreen status`."


class Unavailable(EvergreenError):
    """This cannot be answered now."""

    status = 503
    code = "unavailable"
    remedy = "Try again in a moment."


class NoModel(Unavailable):
    """No model of this loop is in service yet."""

    code = "no_model"
    remedy = "Collect samples and train: `evergreen trigger LOOP --force`."


class Overloaded(Unavailable):
    """More is waiting to be stored than can be held."""

    code = "overloaded"


class PredictionFailed(EvergreenError):
    """Every model in service failed on this input."""

    code = "prediction_failed"

    def __init__(
        self,
        message: str | None = None,
        *,
        field: str | None = None,
        hint: str | None = None,
        failed: Sequence[str] = (),
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        #: Ids of the models that were asked.
        self.failed = failed


class Corrupt(EvergreenError):
    """Stored bytes are not what was stored."""

    code = "corrupt"


class JobFailed(EvergreenError):
    """The training did not deliver."""

    code = "job_failed"

    def __init__(self, message: str | None = None, *, kind: FailureKind = "user_code", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
