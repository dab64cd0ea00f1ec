"""Opening DropboxStores on the server that speaks as Dropbox, also where the official client was imported before."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fake_dropbox import FakeDropbox
from fake_server import certificate
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from evergreen.backends.store.remote.dropbox import DropboxStore
from evergreen.core.config import store_at
from evergreen.core.plugins import make


class Detour(HTTPAdapter):
    """Sends the official client's requests for api.dropboxapi.com here, whatever the environment says."""

    def __init__(self, server: FakeDropbox) -> None:
        super().__init__(pool_maxsize=16)
        self._port, self._trusted = server.port, str(certificate(server.tls or Path()))

    def send(self, request: PreparedRequest, *args: Any, **settings: Any) -> Response:
        request.url = f"https://localhost:{self._port}{urlsplit(request.url or '').path}"
        return super().send(request, *args, **{**settings, "verify": self._trusted})

    def session(self, **_: Any) -> Session:
        """Return a session that takes this way; stands in for `dropbox.create_session`."""
        session = Session()
        session.trust_env = False
        session.mount("https://", self)
        return session


def opened(folder: Path, url: str = "dropbox:///Ever Green/models") -> DropboxStore:
    store: DropboxStore = make("stores", store_at(url), home=folder, state=folder / "state")
    return store
