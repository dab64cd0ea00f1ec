"""Datasets, models and small objects in a folder of Google Drive, over its official client."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from googleapiclient.errors import HttpError
from googleapiclient.http import MediaIoBaseUpload

from evergreen.backends.store import MARK
from evergreen.backends.store.remote.drive_asking import Drive
from evergreen.backends.store.remote.drive_folders import FIELDS, FOLDER, LAG_S, Folders, Parts
from evergreen.backends.store.remote.objects import RemoteStore
from evergreen.backends.store.remote.unfinished import Unfinished
from evergreen.core.errors import ConfigError, NotFound, Unavailable
from evergreen.core.recipe import PluginOptions

#: Bytes of one request of a large file (a multiple of 256 KiB); smaller files go in one request.
CHUNK = 16 * 1024 * 1024
#: Marks, for every reader, a file that `write` has written: it goes before files that `create` has made.
_STATE, _WRITTEN = "evergreen", "written"
#: Kinds that have no bytes: documents of Google's own editors, shortcuts.
_NO_FILE = "application/vnd.google-apps."
_RESTARTS, _MOST_KNOWN = 3, 4096


class DriveOptions(PluginOptions):
    """Settings of the Google Drive store. Credentials come from the environment."""

    url: str
    """gdrive:///folder/of/my/drive, or gdrive://FOLDER-ID/folder for one that is shared or on a shared drive."""


class DriveStore(RemoteStore):
    """Keeps the promises of `Store` in a folder of Google Drive, as folders and files of the very names.

    Drive lets two files of one name lie in one folder. All readers agree on one of them; of machines that use
    `put_new` at once, two may win. Within one process exactly one does.
    """

    Options = DriveOptions

    def __init__(self, options: DriveOptions, *, home: Path, state: Path) -> None:  # noqa: ARG002 - every store's
        top, inner = _place(options.url)
        drive = Drive()
        super().__init__(DriveObjects(drive, Folders(drive, top, inner), Unfinished(state, options.url), options.url))


class _Known:
    """Files that this process has made or written: lists do not show them yet. Shared by all stores of one place."""

    _all: dict[str, _Known] = {}  # noqa: RUF012 - meant to be one for the process
    _lock = Lock()

    def __init__(self) -> None:
        self.making = Lock()  # of this process one thread at a time asks what there is, and makes it
        self.lock = Lock()
        self.ids: dict[str, tuple[str, float]] = {}

    @classmethod
    def at(cls, place: str) -> _Known:
        """Return the one of a place."""
        with cls._lock:
            return cls._all.setdefault(place, cls())

    def add(self, path: str, id: str) -> None:
        """Remember the file of a path."""
        with self.lock:
            self.ids.pop(path, None)
            self.ids[path] = (id, time.monotonic())
            while len(self.ids) > _MOST_KNOWN:
                del self.ids[next(iter(self.ids))]

    def forget(self, path: str) -> None:
        """The file of a path is gone."""
        with self.lock:
            self.ids.pop(path, None)

    def young(self) -> list[str]:
        """Return paths that lists may not show yet."""
        with self.lock:
            return [path for path, (_, when) in self.ids.items() if time.monotonic() - when < LAG_S]


class DriveObjects:
    """Files below one folder of a Drive. Safe between threads."""

    exclusive, staleness_s = False, 30.0

    def __init__(self, drive: Drive, folders: Folders, unfinished: Unfinished, place: str) -> None:
        self._drive, self._folders, self._unfinished = drive, folders, unfinished
        self._known = _Known.at(f"{drive.root} {place}")

    def read(self, path: str) -> bytes | None:
        """Return a file; of several by that name, the one that all readers take."""
        for _ in range(_RESTARTS):
            file = self._chosen(path)
            if file is None:
                return None
            try:
                data: bytes = self._drive.ask(self._drive.files.get_media(fileId=file["id"], supportsAllDrives=True))
            except HttpError as e:
                if e.status_code != 404:
                    raise
                self._known.forget(path)  # it was removed since
            else:
                return data
        return None

    def write(self, path: str, data: bytes) -> None:
        """Put a file in place of what was there: one request, so that readers see the old or the new one."""
        with self._known.lock:
            known = self._known.ids.get(path)
        if known is not None and self._update(path, known[0], data):
            return
        with self._known.making:
            there = self._chosen(path)
            if there is None or not self._update(path, there["id"], data):
                self._insert(path, _media(path, data), written=True)

    def create(self, path: str, data: bytes) -> bool:
        """Put a file if there is none. Of two machines that do so at once, both may win (`exclusive`)."""
        with self._known.making:
            if self._chosen(path) is not None:
                return False
            return self._settled(path, self._insert(path, _media(path, data)))

    def _settled(self, path: str, mine: Any) -> bool:
        """Take one's own file away again if another machine's was there first."""
        chosen = self._chosen(path)
        if chosen is None or chosen["id"] == mine["id"]:
            return True
        self._folders.remove(mine["id"])
        self._known.add(path, chosen["id"])
        return False

    def paths(self, prefix: str) -> Iterator[str]:
        """Name every file at and below a path, each once."""
        if prefix and self._chosen(prefix) is not None:
            yield prefix
        level: dict[str, str] = dict.fromkeys(self._folders.find(_parts(prefix), fresh=True), prefix)
        found: set[str] = set()
        while level:
            deeper: dict[str, str] = {}
            for file in self._folders.children(level):
                above = level.get(next(iter(file.get("parents", ())), ""), prefix if len(level) == 1 else None)
                if above is None or "/" in file["name"]:
                    continue
                path = f"{above}/{file['name']}" if above else file["name"]
                if file["mimeType"] == FOLDER:
                    deeper[file["id"]] = path
                elif not file["mimeType"].startswith(_NO_FILE):
                    found.add(path)
            level = deeper
        yield from found
        below = f"{prefix}/" if prefix else ""
        late = [path for path in self._known.young() if path.startswith(below) and path not in found]
        yield from (path for path in late if self._chosen(path) is not None)

    def remove(self, path: str) -> None:
        """Remove every file of that name."""
        with self._known.making:
            for file in self._all(path):
                self._folders.remove(file["id"])
            self._known.forget(path)
            above = _parts(path)[:-1]
            # What is left of a stored folder when its last file is gone.
            while any(part.endswith(MARK) for part in above) and self._folders.prune(above):
                above = above[:-1]

    def upload(self, path: str, file: Path, told: Callable[[int], None]) -> None:
        """Store a file, in parts if it is large; what broke off goes on, also in another process."""
        size = file.stat().st_size
        with file.open("rb") as source:
            mine = hashlib.file_digest(source, "md5").hexdigest()  # the one digest that Drive has for every file
        for _ in range(_RESTARTS):
            made = (
                self._insert(path, _media(path, file.read_bytes())) if size <= CHUNK else self._large(path, file, told)
            )
            if made is not None and made["md5Checksum"] == mine:
                self._settled(path, made)
                told(size)
                return
            if made is not None:
                self._folders.remove(made["id"])  # something went wrong on the way: once more
                self._known.forget(path)
        raise Unavailable(f"Google Drive has dropped or spoilt the upload of {path} {_RESTARTS} times")

    def download(self, path: str, file: Path, told: Callable[[int], None]) -> None:
        """Write a stored file to `file`, part by part."""
        found = self._chosen(path)
        if found is None:
            raise NotFound(f"Google Drive has no file {path}")
        size = int(found["size"])
        with file.open("xb") as out:
            while (start := out.tell()) < size:
                request = self._drive.files.get_media(fileId=found["id"], supportsAllDrives=True)
                request.headers["range"] = f"bytes={start}-{min(start + CHUNK, size) - 1}"
                try:
                    out.write(self._drive.ask(request))
                except HttpError as e:
                    raise NotFound(f"{path} was removed from Google Drive while it was read") from e
                told(out.tell())

    def _chosen(self, path: str) -> Any | None:
        """Return the file that counts: the last written, or else the first made. The same for all readers."""
        found = self._all(path)
        written = [file for file in found if file.get("properties", {}).get(_STATE) == _WRITTEN]
        if written:
            return max(written, key=lambda file: (file["modifiedTime"], file["id"]))
        return min(found, key=lambda file: (file["createdTime"], file["id"]), default=None)

    def _all(self, path: str) -> list[Any]:
        """Return all files of a path, with what this process knows to be there and no list shows yet."""
        *above, name = _parts(path)
        found = [f for f in self._folders.children(self._folders.find(tuple(above)), name) if _is_file(f)]
        with self._known.lock:
            id, when = self._known.ids.get(path, ("", 0.0))
        if id and all(file["id"] != id for file in found) and time.monotonic() - when < LAG_S:
            try:
                own = self._drive.ask(self._drive.files.get(fileId=id, fields=FIELDS, supportsAllDrives=True))
            except HttpError as e:
                if e.status_code != 404:
                    raise
                own = {"trashed": True}
            if own["trashed"]:
                self._known.forget(path)
            else:
                found.append(own)
        return found

    def _update(self, path: str, id: str, data: bytes) -> bool:
        """Write over a file; False if it is gone, or in the bin."""
        request = self._drive.files.update(
            fileId=id,
            body={"properties": {_STATE: _WRITTEN}},
            media_body=_media(path, data),
            fields=FIELDS,
            supportsAllDrives=True,
        )
        try:
            if not self._drive.ask(request)["trashed"]:
                self._known.add(path, id)
                return True
        except HttpError as e:
            if e.status_code != 404:
                raise
        self._known.forget(path)
        return False

    def _insert(self, path: str, media: Any, *, written: bool = False) -> Any:
        """Make a file, with the folders above it."""
        for _ in range(_RESTARTS):
            try:
                made = self._folders.insert(self._body(path, written), media)
            except HttpError as e:
                if e.status_code != 404:
                    raise
            else:
                if not made["trashed"]:
                    self._known.add(path, made["id"])
                    return made
            self._folders.forget()  # somebody has put a folder above it into the bin
        raise self._folders.no_top()

    def _body(self, path: str, written: bool = False) -> dict[str, Any]:
        *above, name = _parts(path)
        body = {"id": self._drive.new_id(), "name": name, "parents": [self._folders.make(tuple(above))]}
        return {**body, "properties": {_STATE: _WRITTEN}} if written else body

    def _large(self, path: str, file: Path, told: Callable[[int], None]) -> Any | None:
        """Upload in parts; None when Drive does not know of the upload any more."""
        size = file.stat().st_size
        noted = self._unfinished.recall(path, size) or {}
        with file.open("rb") as source:
            media = _Parted(source, _kind(path), chunksize=CHUNK, resumable=True)
            body = {} if noted else self._body(path)
            request = self._drive.files.create(body=body, media_body=media, fields=FIELDS, supportsAllDrives=True)
            if noted:
                # As after an error, the client then asks first how far the upload is.
                request.resumable_uri, request._in_error_state = noted["at"], True

            def step(http: Any) -> Any:
                try:
                    return request.next_chunk(http=http)[1]
                finally:
                    if request.resumable_uri and not noted:
                        self._unfinished.note(path, size, at=request.resumable_uri)
                        noted["at"] = request.resumable_uri

            made = None
            while made is None:
                try:
                    made = self._drive.patiently(step)
                except HttpError as e:
                    self._unfinished.forget(path, size)
                    if e.status_code == 404 and request.resumable_uri is None:
                        self._folders.forget()
                    return None  # forgotten after a week, or its folder is gone: from the start
                told(request.resumable_progress)
        self._unfinished.forget(path, size)
        self._known.add(path, made["id"])
        return made


class _Parted(MediaIoBaseUpload):  # type: ignore[misc]
    """A file whose parts are sent as bytes: a stream could not be sent again when a connection breaks."""

    def has_stream(self) -> bool:
        return False


def _media(path: str, data: bytes) -> MediaIoBaseUpload:
    return MediaIoBaseUpload(io.BytesIO(data), _kind(path))


def _kind(path: str) -> str:
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


def _is_file(file: Any) -> bool:
    return not file["mimeType"].startswith(_NO_FILE)


def _parts(path: str) -> Parts:
    return tuple(path.split("/")) if path else ()


def _place(url: str) -> tuple[str, Parts]:
    """Return the id of the folder to begin at, and the names to go from there."""
    parts = urlsplit(url)
    inner = PurePosixPath(unquote(parts.path)).parts[1:]
    if parts.scheme != "gdrive" or parts.query or parts.fragment or ".." in inner:
        raise ConfigError(
            f"{url} is no place in Google Drive",
            field="url",
            hint="Write gdrive:///folder (three slashes) or gdrive://FOLDER-ID/folder.",
        )
    return parts.netloc or "root", inner
