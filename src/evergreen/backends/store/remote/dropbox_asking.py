"""Asking Dropbox: credentials, patience, and what went wrong in our own words."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import dropbox
from dropbox.exceptions import ApiError, AuthError, BadInputError, HttpError, InternalServerError, RateLimitError
from requests.exceptions import RequestException

from evergreen.backends.store.remote.patience import patiently
from evergreen.core.errors import ConfigError, Conflict, Corrupt, Unavailable

T = TypeVar("T")

#: What the client raises when the answer is not from Dropbox: a page of some gateway in between.
_GARBLED = (AssertionError, ValueError)
_VARIABLES = ("DROPBOX_APP_KEY", "DROPBOX_APP_SECRET", "DROPBOX_REFRESH_TOKEN")


def ask(question: Callable[[], T]) -> T:
    """Ask until it is answered. Raises `ConfigError`, `Unavailable`, and `ApiError` for what Dropbox will not do."""
    try:
        return patiently(question, _wait_s)
    except (AuthError, BadInputError) as e:
        raise ConfigError(
            f"Dropbox does not accept the credentials ({_why(e)})",
            hint=f"Check {', '.join(_VARIABLES)}: they belong to one app, which needs the permissions "
            "files.content.write, files.content.read and files.metadata.read.",
        ) from None  # what is behind it may show them
    except (RequestException, HttpError, *_GARBLED) as e:
        raise Unavailable(f"Dropbox does not answer ({type(e).__name__})") from e


def client() -> dropbox.Dropbox:
    """Return the official client with the credentials of the environment."""
    key, secret, token = (os.environ.get(name, "").strip() for name in _VARIABLES)
    if missing := [name for name, said in zip(_VARIABLES, (key, secret, token), strict=True) if not said]:
        raise ConfigError(
            f"the Dropbox store needs {' and '.join(missing)} in the environment",
            field=missing[0],
            hint="Register an app at https://www.dropbox.com/developers/apps and let it have a refresh token "
            "(token_access_type=offline).",
        )
    # How often and how long to wait is our own decision, for breaks of the line too.
    return dropbox.Dropbox(
        oauth2_refresh_token=token,
        app_key=key,
        app_secret=secret,
        max_retries_on_error=0,
        max_retries_on_rate_limit=0,
        timeout=60,
        user_agent="evergreen",
    )


def _wait_s(e: Exception) -> float | None:
    """Say how long Dropbox wants to be left alone after an error; None if asking again is of no use."""
    if isinstance(e, RateLimitError):
        return float(e.backoff or 0)
    if isinstance(e, AuthError):
        return 0.0 if tags(e) == ("expired_access_token",) else None
    if isinstance(e, ApiError):
        return 0.0 if {"too_many_write_operations", "content_hash_mismatch"} & set(tags(e)) else None
    return 0.0 if isinstance(e, (RequestException, InternalServerError, Corrupt, *_GARBLED)) else None


def tags(e: ApiError | AuthError) -> tuple[str, ...]:
    """Read an error of unions in unions: ("path", "conflict", "file")."""
    found, inner = [], e.error
    while (tag := getattr(getattr(inner, "reason", inner), "_tag", None)) is not None:
        found.append(tag)
        inner = getattr(inner, "reason", inner)._value
    return tuple(found) or ("other",)


def refused(path: str, e: ApiError) -> Exception:
    """Return our error for what Dropbox will not do with a path."""
    why = tags(e)
    if "conflict" in why:
        what = "lies below a file" if why[-1] == "file_ancestor" else f"is a {why[-1]} there already"
        return Conflict(f'"{path}" cannot be stored: on Dropbox it {what}', hint="Choose another key.")
    hint = "Free some space there." if "insufficient_space" in why else None
    return Unavailable(f'Dropbox refuses "{path}": {"/".join(why)}', hint=hint)


def _why(e: HttpError) -> str:
    return "/".join(tags(e)) if isinstance(e, AuthError) else "the request was refused"
