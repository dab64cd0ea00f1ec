"""Datasets, models and small objects in a folder of Dropbox, over its official client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import dropbox
from dropbox.content_hash import DropboxContentHasher
from dropbox.exceptions import ApiError
from dropbox.files import CommitInfo, DeletedMetadata, FileMetadata, UploadSessionCursor, WriteMode
from requests.exceptions import RequestException

from evergreen.backends.store import BLOCK, MARK
from evergreen.backends.store.remote.dropbox_asking import ask, client, refused, tags
from evergreen.backends.store.remote.objects import RemoteStore
from evergreen.backends.store.remote.unfinished import Unfinished
from evergreen.core.errors import ConfigError, Conflict, Corrupt, NotFound, Unavailable
from evergreen.core.recipe import PluginOptions

#: Bytes of one request of a large upload (a multiple of 4 MiB); smaller files go in one request.
CHUNK = 16 * 1024 * 1024
_RESTARTS = 3


class DropboxOptions(PluginOptions):
    """Settings of the Dropbox store. The key of the app and the user's leave come from the environment."""

    url: str
    """dropbox:///folder: below the folder of the app, or the user's own top folder, as the app was registered."""


class DropboxStore(RemoteStore):
    """Keeps the promises of `Store` in a folder of Dropbox.

    Dropbox does not tell a.txt from A.txt: a key that differs from a stored one in case only is a `Conflict`.
    """

    Options = DropboxOptions

    def __init__(self, options: DropboxOptions, *, home: Path, state: Path) -> None:  # noqa: ARG002 - every store's
        super().__init__(DropboxObjects(_folder(options.url), client(), Unfinished(state, options.url)))


class DropboxObjects:
    """Files below one folder of a Dropbox. Safe between threads."""

    exclusive, staleness_s = True, 5.0

    def __init__(self, folder: str, client: dropbox.Dropbox, unfinished: Unfinished) -> None:
        self._folder, self._client, self._unfinished = folder, client, unfinished
        self._ours: set[str] = set()  # paths that this process has written: their case is right

    def read(self, path: str) -> bytes | None:
        """Return a file; None if there is none by exactly that name."""

        def fetch() -> tuple[str, bytes]:
            found, response = self._client.files_download(self._at(path))
            with closing(response):
                data: bytes = response.content
            if _content_hash([data]) != found.content_hash:
                raise Corrupt(f"{path} came from Dropbox other than it is there (its content hash differs)")
            return self._name(found), data

        try:
            name, data = ask(fetch)
        except ApiError as e:
            if tags(e)[-1] in ("not_found", "not_file"):
                return None
            raise refused(path, e) from e
        return data if name == path else None

    def write(self, path: str, data: bytes) -> None:
        """Put a file in place of what was there."""
        if path not in self._ours and self.create(path, data):
            return
        self._put(path, data, WriteMode.overwrite)

    def create(self, path: str, data: bytes) -> bool:
        """Put a file if there is none; strict_conflict, without which equal bytes over a file pass for success."""
        return self._add(path, data)[0]

    def _add(self, path: str, data: bytes) -> tuple[bool, Any | None]:
        """Say whether the file is ours, and return what lies there now."""
        asked = []

        def add() -> Any:
            asked.append(path)
            return self._client.files_upload(data, self._at(path), mode=WriteMode.add, strict_conflict=True, mute=True)

        try:
            return True, self._keep(path, ask(add))
        except ApiError as e:
            if tags(e)[:3] == ("path", "conflict", "folder") and self._clear(path):
                return self._add(path, data)
            if tags(e)[:3] != ("path", "conflict", "file"):
                raise refused(path, e) from e
            there = self._look(path)
            # Only a request that was sent twice can have met its own file.
            return there is not None and len(asked) > 1 and there.content_hash == _content_hash([data]), there

    def paths(self, prefix: str) -> Iterator[str]:
        """Name every file at and below a path, as spelt where it lies."""
        try:
            found = self._listed(prefix)
        except ApiError as e:
            if tags(e)[-1] == "not_folder":
                if (file := self._find(prefix)) is not None and self._name(file) == prefix:
                    yield prefix
                return
            if tags(e)[-1] == "not_found":
                return
            raise refused(prefix, e) from e
        yield from (path for path in found if not prefix or path.startswith(prefix + "/"))

    def remove(self, path: str) -> None:
        """Remove a file, of exactly this name: never a folder, never a file that was replaced meanwhile."""
        for _ in range(_RESTARTS):
            there = self._find(path)
            if there is None or self._name(there) != path:
                return
            try:
                self._delete(there)
            except ApiError as e:
                if tags(e)[-1] == "not_found":
                    return
                if tags(e)[:2] != ("path_write", "conflict"):
                    raise refused(path, e) from e
            else:
                self._tidy(path.rpartition("/")[0])
                return
        raise Conflict(f"{path} is replaced faster than it can be removed", hint="Stop what writes it, then again.")

    def _tidy(self, folder: str) -> None:
        """Remove what is left of a stored folder when its last file is gone: Dropbox keeps empty folders."""
        try:
            while f"{MARK}/" in folder + "/" and not self._listed(folder):
                ask(partial(self._client.files_delete_v2, self._at(folder)))
                folder = folder.rpartition("/")[0]
        except ApiError as e:
            if tags(e)[-1] != "not_found":  # somebody else was faster
                raise refused(folder, e) from e

    def upload(self, path: str, file: Path, told: Callable[[int], None]) -> None:
        """Store a file, in parts if it is large; what broke off goes on, also in another process."""
        mine, small = _hash_of(file), file.stat().st_size <= CHUNK
        for _ in range(_RESTARTS):
            there = self._add(path, file.read_bytes())[1] if small else self._large(path, file, told)
            if there is not None:
                break
        else:
            raise Unavailable(f"Dropbox has dropped the upload of {path} {_RESTARTS} times")
        if there.content_hash != mine:
            raise Conflict(f"{path} is stored already, with other content", hint="Was the file changed meanwhile?")
        told(there.size)

    def download(self, path: str, file: Path, told: Callable[[int], None]) -> None:
        """Write a stored file to `file`, going on where the connection broke."""
        found = self._look(path)
        if found is None:
            raise NotFound(f"Dropbox has no file {path}")
        with file.open("xb") as out:
            while out.tell() < found.size:
                try:
                    ask(lambda: self._more(found, out, told))
                except ApiError as e:
                    if tags(e)[-1] == "not_found":
                        raise NotFound(f"{path} was removed from Dropbox while it was read") from e
                    raise refused(path, e) from e

    def _more(self, found: Any, out: Any, told: Callable[[int], None]) -> None:
        """Fetch the rest of one revision of a file, or as much of it as comes."""
        start = out.tell()
        _, response = self._client.files_download(f"rev:{found.rev}", extra_headers={"Range": f"bytes={start}-"})
        with closing(response):
            if start and response.status_code != 206:
                start = out.seek(0)
                out.truncate()
            try:
                for block in response.iter_content(BLOCK):
                    out.write(block)
                    told(out.tell())
            except RequestException:
                if out.tell() == start:
                    raise  # nothing came: that counts as a failure, to be waited after

    def _large(self, path: str, file: Path, told: Callable[[int], None]) -> Any | None:
        """Upload in parts; None when Dropbox does not know of the upload any more and has no such file either."""
        size = file.stat().st_size
        noted = self._unfinished.recall(path, size) or {}
        session, offset = noted.get("session"), int(noted.get("offset", 0))
        if session is None:
            session, offset = ask(lambda: self._client.files_upload_session_start(b"")).session_id, 0
        with file.open("rb") as source:
            while True:
                self._unfinished.note(path, size, session=session, offset=str(offset))
                told(offset)
                try:
                    found, offset = self._part(path, source, session, offset, size)
                except ApiError as e:
                    self._unfinished.forget(path, size)
                    if {"not_found", "closed", "incorrect_offset"} & set(tags(e)) or tags(e)[-1] == "file":
                        return self._look(path)  # perhaps it was done, and only the answer lost
                    raise refused(path, e) from e
                if found is not None:
                    self._unfinished.forget(path, size)
                    return self._keep(path, found)

    def _part(self, path: str, source: Any, session: str, offset: int, size: int) -> tuple[Any | None, int]:
        """Send one part; return the finished file, if this was the last, and where to go on."""
        source.seek(offset)
        data = source.read(CHUNK)
        cursor = UploadSessionCursor(session, offset)
        commit = CommitInfo(self._at(path), mode=WriteMode.add, strict_conflict=True, mute=True)
        last = offset + len(data) >= size
        try:
            if last:
                return ask(lambda: self._client.files_upload_session_finish(data, cursor, commit)), size
            ask(lambda: self._client.files_upload_session_append_v2(data, cursor))
        except ApiError as e:
            why = tags(e)
            if why[-1] != "incorrect_offset":
                raise
            error = e.error.get_lookup_failed() if why[0] == "lookup_failed" else e.error
            correct = int(error.get_incorrect_offset().correct_offset)
            if correct == offset or correct > size:
                raise
            return None, correct
        return None, offset + len(data)

    def _put(self, path: str, data: bytes, mode: Any) -> None:
        try:
            found = ask(lambda: self._client.files_upload(data, self._at(path), mode=mode, mute=True))
        except ApiError as e:
            raise refused(path, e) from e
        self._same_case(path, found)

    def _keep(self, path: str, found: Any) -> Any:
        """Accept a file that was just made, unless a folder above it is spelt otherwise: then take it away again."""
        if self._name(found) != path:
            self._delete(found)
        self._same_case(path, found)
        self._ours.add(path)
        return found

    def _look(self, path: str) -> Any | None:
        """Return what Dropbox says of a file; `Conflict` if it has one that differs in case only."""
        found = self._find(path)
        if found is not None:
            self._same_case(path, found)
        return found

    def _find(self, path: str) -> Any | None:
        try:
            found = ask(lambda: self._client.files_get_metadata(self._at(path)))
        except ApiError as e:
            if tags(e)[-1] == "not_found":
                return None
            raise refused(path, e) from e
        return found if isinstance(found, FileMetadata) else None

    def _clear(self, path: str) -> bool:
        """Remove a folder if it holds no file. Dropbox keeps folders whose files are gone.

        It has no way to remove a folder only if it is empty: so it is put aside, and put back if a file came just then.
        """
        if self._listed(path):
            return False
        aside = f".removed-{uuid4().hex}"
        ask(lambda: self._client.files_move_v2(self._at(path), self._at(aside)))
        if self._listed(aside):
            ask(lambda: self._client.files_move_v2(self._at(aside), self._at(path)))
            return False
        ask(lambda: self._client.files_delete_v2(self._at(aside)))
        return True

    def _delete(self, found: Any) -> None:
        ask(lambda: self._client.files_delete_v2(found.path_lower, parent_rev=found.rev))

    def _same_case(self, path: str, found: Any) -> None:
        if self._name(found) != path:
            raise Conflict(
                f'Dropbox does not tell "{path}" from "{self._name(found)}", which is there',
                hint="Choose names that differ in more than case.",
            )

    def _listed(self, prefix: str) -> list[str]:
        """List files below a folder, all pages. A list that changed while it was read begins anew."""
        top, dropbox = self._at(prefix), self._client
        while True:
            try:
                page = ask(lambda: dropbox.files_list_folder(top, recursive=True, limit=2000))
                seen: dict[str, Any] = {}
                while True:
                    for entry in page.entries:
                        seen[entry.path_lower] = entry
                        if isinstance(entry, DeletedMetadata):
                            gone = entry.path_lower + "/"
                            seen = {path: found for path, found in seen.items() if not path.startswith(gone)}
                    if not page.has_more:
                        return [self._name(found) for found in seen.values() if isinstance(found, FileMetadata)]
                    page = ask(partial(dropbox.files_list_folder_continue, page.cursor))
            except ApiError as e:
                if tags(e)[-1] != "reset":
                    raise

    def _at(self, path: str) -> str:
        return f"{self._folder}/{path}" if path else self._folder

    def _name(self, found: Any) -> str:
        """Return a file's path below our folder, spelt as Dropbox shows it."""
        return "/".join(found.path_display.split("/")[self._folder.count("/") + 1 :])


def _folder(url: str) -> str:
    parts = urlsplit(url)
    folder = unquote(parts.path).rstrip("/")
    if parts.scheme != "dropbox" or parts.netloc or parts.query or parts.fragment or "//" in folder:
        raise ConfigError(f"{url} is no place in Dropbox", field="url", hint="Write dropbox:///folder (three slashes).")
    return folder


def _content_hash(blocks: list[bytes]) -> str:
    hasher = DropboxContentHasher()
    for block in blocks:
        hasher.update(block)
    return str(hasher.hexdigest())


def _hash_of(file: Path) -> str:
    hasher = DropboxContentHasher()
    with file.open("rb") as source:
        while block := source.read(BLOCK):
            hasher.update(block)
    return str(hasher.hexdigest())
