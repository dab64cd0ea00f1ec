"""Asking Google Drive: credentials, connections, patience, and what went wrong in our own words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, TypeVar
from weakref import finalize

import google_auth_httplib2
import httplib2
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.oauth2 import credentials, service_account
from googleapiclient.discovery import build_from_document
from googleapiclient.discovery_cache import get_static_doc
from googleapiclient.errors import HttpError
from googleapiclient.http import build_http

from evergreen.backends.store.remote.patience import patiently
from evergreen.core.errors import ConfigError, Unavailable

T = TypeVar("T")

_PERSON = ("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "GOOGLE_REFRESH_TOKEN")
_ACCOUNT = "GOOGLE_SERVICE_ACCOUNT"
#: For tests and private gateways: where the API lies instead, "http://127.0.0.1:8080/". Tokens come from `token` there.
_ROOT = "EVERGREEN_DRIVE_ROOT"
_SCOPES = ("https://www.googleapis.com/auth/drive",)
#: Reasons of a 403 that mean "not so fast".
_SLOWER = ("rateLimitExceeded", "userRateLimitExceeded", "sharingRateLimitExceeded", "backendError")


class Drive:
    """The official client, for any number of threads: httplib2's connections are lent to one at a time."""

    def __init__(self) -> None:
        root = os.environ.get(_ROOT, "").strip()
        self._credentials = _credentials(f"{root}token" if root else "https://oauth2.googleapis.com/token")
        about = json.loads(get_static_doc("drive", "v3"))
        if root:  # the client takes client_options.api_endpoint for calls, but not for uploads
            about |= {"rootUrl": root, "baseUrl": root + about["servicePath"]}
            about.pop("mtlsRootUrl", None)
        #: Where the API lies, if not at Google.
        self.root = root
        self._ids: LifoQueue[str] = LifoQueue()
        self._idle: LifoQueue[Any] = LifoQueue()
        finalize(self, _close, self._idle)
        with self._connection() as http:
            self.files = build_from_document(about, http=http).files()

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        try:
            http = self._idle.get_nowait()
        except Empty:
            http = google_auth_httplib2.AuthorizedHttp(self._credentials, http=build_http())
        try:
            yield http
        finally:
            self._idle.put(http)

    def ask(self, request: Any) -> Any:
        """Send a request of the official client until it is answered."""
        return self.patiently(lambda http: request.execute(http=http))

    def patiently(self, question: Callable[[Any], T]) -> T:
        """Ask with a connection until it is answered.

        Raises `ConfigError`, `Unavailable`, and `HttpError` for 404, 409 and 410: what they mean, the asker knows.
        """

        def once() -> T:
            with self._connection() as http:
                return question(http)

        try:
            return patiently(once, _wait_s)
        except HttpError as e:
            if e.status_code in (404, 409, 410):
                raise
            raise _refused(e) from e
        except RefreshError as e:
            if e.retryable:
                raise Unavailable("Google gives out no token now") from None
            raise ConfigError("Google does not accept the credentials", hint=_check()) from None  # it may show them
        except (OSError, HTTPException, httplib2.HttpLib2Error, GoogleAuthError) as e:
            raise Unavailable(f"Google Drive does not answer ({type(e).__name__})") from e

    def new_id(self) -> str:
        """Return an id that no file has: of two requests that make a file with it, the second is refused (409)."""
        try:
            return self._ids.get_nowait()
        except Empty:
            first, *more = self.ask(self.files.generateIds(count=20, space="drive"))["ids"]
        for id in more:
            self._ids.put(id)
        return str(first)


def _credentials(token_uri: str) -> Any:
    if said := os.environ.get(_ACCOUNT, "").strip():
        try:
            about = json.loads(said if said.startswith("{") else Path(said).expanduser().read_text())
            return service_account.Credentials.from_service_account_info(about, scopes=_SCOPES)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, TypeError, GoogleAuthError):
            raise ConfigError(
                f"{_ACCOUNT} is not the key of a service account",
                field=_ACCOUNT,
                hint="Give the text of its JSON key, or the path of that file.",
            ) from None  # what is behind it may show it
    client, secret, token = (os.environ.get(name, "").strip() for name in _PERSON)
    if missing := [name for name, value in zip(_PERSON, (client, secret, token), strict=True) if not value]:
        raise ConfigError(
            f"the Google Drive store needs {' and '.join(missing)} in the environment, or {_ACCOUNT}",
            field=missing[0],
            hint="Make an OAuth client (desktop app) or a service account at https://console.cloud.google.com/apis.",
        )
    return credentials.Credentials(  # type: ignore[no-untyped-call]
        None, refresh_token=token, token_uri=token_uri, client_id=client, client_secret=secret
    )


def _check() -> str:
    if os.environ.get(_ACCOUNT, "").strip():
        return f"Check {_ACCOUNT}: the key may have been deleted, or the clock of this machine is wrong."
    return f"Check {', '.join(_PERSON)}: they belong together, and a refresh token can be withdrawn or run out."


def _wait_s(e: Exception) -> float | None:
    """Say how long Drive wants to be left alone after an error; None if asking again is of no use."""
    if isinstance(e, HttpError):
        wanted = str(e.resp.get("retry-after", "0"))
        if e.status_code == 429 or e.status_code >= 500 or (e.status_code == 403 and reason(e) in _SLOWER):
            return float(wanted) if wanted.isdigit() else 0.0
        # The client has asked for a new token already, and that one was refused too: perhaps it is not known yet.
        return 0.0 if e.status_code == 401 else None
    if isinstance(e, RefreshError):
        return 0.0 if e.retryable else None
    return 0.0 if isinstance(e, (OSError, HTTPException, httplib2.HttpLib2Error, TransportError)) else None


def reason(e: HttpError) -> str:
    """Return Drive's word for what is wrong: "storageQuotaExceeded"."""
    details = e.error_details
    return str(details[0].get("reason", "")) if isinstance(details, list) and details else str(e.status_code)


def _refused(e: HttpError) -> Exception:
    why = reason(e)
    if e.status_code == 401:
        return ConfigError("Google Drive does not accept the credentials", hint=_check())
    if why in ("storageQuotaExceeded", "teamDriveFileLimitExceeded"):
        return Unavailable(
            f"Google Drive has no room ({why})",
            hint="Free some space. A service account has none of its own: use a folder of a shared drive, "
            "gdrive://FOLDER-ID/, or a person's refresh token.",
        )
    if e.status_code == 403:
        return ConfigError(
            f"Google Drive does not allow it ({why})",
            hint="Share the folder with the account as an editor, and switch the Drive API on for its project.",
        )
    return Unavailable(f"Google Drive refuses a request ({e.status_code} {why})")


def _close(idle: LifoQueue[Any]) -> None:
    while not idle.empty():
        idle.get_nowait().close()
