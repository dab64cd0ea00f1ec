"""Folders and files of Google Drive by path, where names are not unique and lists come late."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from threading import RLock
from typing import Any

from googleapiclient.errors import HttpError

from evergreen.backends.store.remote.drive_asking import Drive
from evergreen.core.errors import ConfigError

FOLDER = "application/vnd.google-apps.folder"
FIELDS = "id,name,mimeType,parents,createdTime,modifiedTime,size,md5Checksum,properties,trashed"
#: Seconds for which lists may not know what was done, and for which folders are not looked up again.
LAG_S, FRESH_S = 60.0, 10.0
#: Folders asked for in one search: addresses of more than 2,000 characters are not good.
_AT_ONCE = 25

Parts = tuple[str, ...]


class Folders:
    """The tree below one folder. Every folder of a name counts, so that two machines may make one at once."""

    def __init__(self, drive: Drive, top: str, inner: Parts) -> None:
        self._drive, self._top, self._inner = drive, top, inner
        self._lock = RLock()
        self._scope: dict[str, Any] | None = None
        self._seen: dict[Parts, tuple[float, list[str]]] = {}
        self._made: dict[Parts, tuple[float, str]] = {}
        self._removed: dict[str, float] = {}

    def find(self, parts: Parts, *, fresh: bool = False) -> list[str]:
        """Return the ids of all folders at a path, the oldest first."""
        return self._find((*self._inner, *parts), fresh)

    def _find(self, parts: Parts, fresh: bool) -> list[str]:
        if not parts:
            return [self._top]
        with self._lock:
            when, ids = self._seen.get(parts, (0.0, []))
            if ids and not fresh and time.monotonic() - when < FRESH_S:
                return ids
        above = self._find(parts[:-1], fresh)
        found = [f for f in self.children(above, parts[-1]) if f["mimeType"] == FOLDER]
        ids = [f["id"] for f in sorted(found, key=lambda f: (f["createdTime"], f["id"]))]
        with self._lock:
            made, id = self._made.get(parts, (0.0, ""))
            if id and id not in ids and time.monotonic() - made < LAG_S:
                ids.append(id)
            self._seen[parts] = (time.monotonic(), ids)
        return ids

    def make(self, parts: Parts) -> str:
        """Return the folder to put new files of a path into; make what is missing."""
        return self._make((*self._inner, *parts))

    def _make(self, parts: Parts) -> str:
        if not parts:
            return self._top
        with self._lock:  # of this process one thread makes it
            if ids := self._find(parts, fresh=False):
                return ids[0]
            above, id = self._make(parts[:-1]), self._drive.new_id()
            body = {"id": id, "name": parts[-1], "mimeType": FOLDER, "parents": [above]}
            self.insert(body)
            self._made[parts] = (time.monotonic(), id)
            self._seen.pop(parts, None)
            return id

    def insert(self, body: dict[str, Any], media: Any = None) -> Any:
        """Make a file or folder with an id of its own; being refused as there already means that it was made."""
        files = self._drive.files
        try:
            return self._drive.ask(files.create(body=body, media_body=media, fields=FIELDS, supportsAllDrives=True))
        except HttpError as e:
            if e.status_code != 409:
                raise
        return self._drive.ask(files.get(fileId=body["id"], fields=FIELDS, supportsAllDrives=True))

    def forget(self) -> None:
        """Look every folder up again: one of them is gone."""
        with self._lock:
            self._seen.clear()
            self._made.clear()

    def children(self, folders: Iterable[str], name: str | None = None) -> Iterator[Any]:
        """Yield what lies in folders, with exactly this name if one is given."""
        ids = list(folders)
        for at in range(0, len(ids), _AT_ONCE):
            yield from (f for f in self._search(ids[at : at + _AT_ONCE], name) if self._counts(f, name))

    def _search(self, folders: list[str], name: str | None) -> list[Any]:
        """Return all pages of a search. Drive refuses it as a whole when one of the folders is no more."""
        scope, found = self._within(), list[Any]()
        more: dict[str, str] = {}
        places = " or ".join(f"{_text(id)} in parents" for id in folders)
        named = f" and name = {_text(name)}" if name is not None else ""
        asked = {"q": f"({places}) and trashed = false{named}", "fields": f"nextPageToken,files({FIELDS})"}
        try:
            while True:
                request = self._drive.files.list(**asked, **scope, **more, pageSize=1000, supportsAllDrives=True)
                answer = self._drive.ask(request)
                found += answer["files"]
                if "nextPageToken" not in answer:
                    return found
                more = {"pageToken": answer["nextPageToken"]}
        except HttpError as e:
            if e.status_code != 404:
                raise
            if self._top in folders:
                raise self.no_top() from e
            self.forget()
            return [file for id in folders for file in self._search([id], name)] if len(folders) > 1 else []

    def _counts(self, file: Any, name: str | None) -> bool:
        # Drive's own search for a name does not look at case.
        return name in (None, file["name"]) and time.monotonic() - self._removed.get(file["id"], -LAG_S) >= LAG_S

    def remove(self, id: str) -> None:
        """Delete a file; where the account may not (shared drives), put it into the bin."""
        files = self._drive.files
        now = time.monotonic()
        with self._lock:
            self._removed = {gone: when for gone, when in self._removed.items() if now - when < LAG_S} | {id: now}
        try:
            try:
                self._drive.ask(files.delete(fileId=id, supportsAllDrives=True))
            except ConfigError:
                trashed = files.update(fileId=id, body={"trashed": True}, fields="id", supportsAllDrives=True)
                self._drive.ask(trashed)
        except HttpError as e:
            if e.status_code != 404:
                raise

    def prune(self, parts: Parts) -> bool:
        """Remove the folders of a path if they hold nothing; say whether none is left."""
        ids = self.find(parts, fresh=True)
        if any(True for _ in self.children(ids)):
            return False
        for id in ids:
            self.remove(id)
        full = (*self._inner, *parts)
        with self._lock:
            self._seen = {path: seen for path, seen in self._seen.items() if path[: len(full)] != full}
            self._made = {path: made for path, made in self._made.items() if path[: len(full)] != full}
        return True

    def _within(self) -> dict[str, Any]:
        """Return where to search: a shared drive is searched as a whole, or not completely. Checks the top folder."""
        if self._scope is None:
            get = self._drive.files.get(fileId=self._top, fields="id,mimeType,driveId,trashed", supportsAllDrives=True)
            try:
                top = self._drive.ask(get)
            except HttpError as e:
                raise self.no_top() from e
            if top["mimeType"] != FOLDER or top.get("trashed"):
                raise self.no_top()
            shared = {"corpora": "drive", "driveId": top["driveId"]} if "driveId" in top else {}
            self._scope = {"includeItemsFromAllDrives": True, **shared}
        return self._scope

    def no_top(self) -> ConfigError:
        """Return the error that says that the top folder cannot be used."""
        return ConfigError(
            f"Google Drive has no folder {self._top} for this account, or it is in the bin",
            field="url",
            hint="Take the id from the folder's address in the browser, and share the folder with the account.",
        )


def _text(said: str) -> str:
    quoted = said.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"
