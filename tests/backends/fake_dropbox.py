"""Dropbox, as far as a store needs it: API v2 over TLS with its rules, errors, pages and upload sessions."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent))

from fake_server import Content, FakeServer, Fault, Reply, Request, adjust, arguments, certificate, now, serve

KEY, SECRET, REFRESH = "app-key", "app-secret", "refresh-token"
_PATH = re.compile(r"/(.|[\r\n])*|id:.+|rev:[0-9a-f]{9,}", re.DOTALL)
_MIB = 1 << 20

#: What each route may be told, and what it must be told (marked *).
_ARGUMENTS: Mapping[str, set[str]] = {
    "files/upload": {"*path", "mode", "autorename", "mute", "strict_conflict", "content_hash", "client_modified"},
    "files/upload_session/start": {"close", "session_type", "content_hash"},
    "files/upload_session/append_v2": {"*cursor", "close", "content_hash"},
    "files/upload_session/finish": {"*cursor", "*commit", "content_hash"},
    "files/download": {"*path"},
    "files/get_metadata": {"*path", "include_media_info", "include_deleted", "include_has_explicit_shared_members"},
    "files/delete_v2": {"*path", "parent_rev"},
    "files/move_v2": {"*from_path", "*to_path", "autorename", "allow_ownership_transfer", "allow_shared_folder"},
    "files/list_folder": {
        *("*path", "recursive", "limit", "include_media_info", "include_deleted", "include_mounted_folders"),
        *("include_has_explicit_shared_members", "include_non_downloadable_files", "include_restorable_info"),
    },
    "files/list_folder/continue": {"*cursor"},
}
_COMMIT = {"*path", "mode", "autorename", "mute", "strict_conflict", "client_modified"}
_WITH_BODY = {"files/upload", *(f"files/upload_session/{step}" for step in ("start", "append_v2", "finish"))}


class Refuse(Exception):
    """The answer is this error."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass
class Entry:
    """A file (or, without content, a folder)."""

    shown: str
    id: str
    content: Content | None = None
    rev: str = ""
    at: str = ""
    born: float = 0.0


@dataclass
class Started:
    """An upload under way."""

    content: Content
    closed: bool = False


class FakeDropbox(FakeServer):
    """One user's Dropbox."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(port, tls=folder)
        self.entries: dict[str, Entry] = {}
        self.sessions: dict[str, Started] = {}
        self.cursors: dict[str, list[dict[str, Any]]] = {}
        self.tokens: dict[str, float] = {}
        self.token_s = 14400
        self.page = 2000  #: most entries of a page; the product promises no least
        self._rev = 0x5000000000

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables with which the official client comes here instead."""
        host = f"localhost:{self.port}"
        return {
            **dict.fromkeys(("DROPBOX_API_HOST", "DROPBOX_API_CONTENT_HOST", "DROPBOX_API_NOTIFY_HOST"), host),
            "REQUESTS_CA_BUNDLE": str(certificate(self.tls or Path())),
            "DROPBOX_APP_KEY": KEY,
            "DROPBOX_APP_SECRET": SECRET,
            "DROPBOX_REFRESH_TOKEN": REFRESH,
        }

    def busy(self, seconds: int) -> Reply:
        error = {"reason": {".tag": "too_many_requests"}, "retry_after": seconds}
        said = {"error_summary": "too_many_requests/..", "error": error}
        return Reply.json(429, said, headers={"Retry-After": str(seconds)})

    def accidents(self, line: str) -> list[Fault]:
        expired = {"error_summary": "expired_access_token/..", "error": {".tag": "expired_access_token"}}
        return [*super().accidents(line), *([] if "/token" in line else [Fault(reply=Reply.json(401, expired))])]

    def answer(self, request: Request) -> Reply:
        if not request.whole:
            return Reply(400)
        if request.path == "/oauth2/token":
            return self._token(dict(parse_qsl(request.body.decode())))
        try:
            self._authorised(request)
            return self._route(request)
        except Refuse as e:
            return e.reply

    def _token(self, said: Mapping[str, str]) -> Reply:
        if said.get("client_id") != KEY or said.get("client_secret", SECRET) != SECRET:
            return Reply.json(
                400, {"error": "invalid_client", "error_description": "Invalid client_id or client_secret"}
            )
        if said.get("grant_type") != "refresh_token" or said.get("refresh_token") != REFRESH:
            said_why = "refresh token is malformed" if "refresh_token" in said else "missing refresh_token"
            return Reply.json(400, {"error": "invalid_grant", "error_description": said_why})
        token = "sl." + uuid4().hex
        self.tokens[token] = time.time() + self.token_s
        return Reply.json(200, {"access_token": token, "token_type": "bearer", "expires_in": self.token_s})

    def _authorised(self, request: Request) -> None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0) < time.time():
            tag = "expired_access_token" if token in self.tokens else "invalid_access_token"
            raise Refuse(Reply.json(401, {"error_summary": f"{tag}/..", "error": {".tag": tag}}))

    def _route(self, request: Request) -> Reply:
        route = request.path.removeprefix("/2/")
        if request.method != "POST" or route not in _ARGUMENTS or not request.path.startswith("/2/"):
            self._bad(route, "unknown route or method")
        said = request.headers.get("dropbox-api-arg")
        kind = request.headers.get("content-type", "")
        if route in _WITH_BODY:
            if said is None or kind != "application/octet-stream":
                self._bad(route, f"an upload wants Dropbox-API-Arg and application/octet-stream, not {kind}")
            if len(request.body) > 150 * _MIB:
                self._error("payload_too_large")
        elif route == "files/download":
            if said is None or request.body:
                self._bad(route, "a download wants Dropbox-API-Arg and no body")
        elif said is not None or kind != "application/json":
            self._bad(route, f"a call wants its arguments as application/json, not {kind}")
        arg = json.loads(said) if said is not None else request.json()
        self._known(route, arg, _ARGUMENTS[route])
        if isinstance(claimed := arg.get("content_hash"), str) and claimed != content_hash(BytesIO(request.body)):
            self._error("content_hash_mismatch")
        return _DO[route](self, arg, request)

    def _known(self, route: str, arg: Mapping[str, Any], names: set[str]) -> None:
        if unknown := set(arg) - {name.lstrip("*") for name in names}:
            self._bad(route, f"unknown field(s) {sorted(unknown)}")
        if missing := {name[1:] for name in names if name.startswith("*")} - set(arg):
            self._bad(route, f"missing required field(s) {sorted(missing)}")
        path = arg.get("path")
        if path is None or (route == "files/list_folder" and path == ""):
            return
        if not _PATH.fullmatch(path) or path.endswith("/") or "//" in path:
            self._bad(route, f"path: {path!r} did not match pattern")

    def _bad(self, route: str, why: str) -> None:
        self.wrong.append(f"{route}: {why}")
        text = f'Error in call to API function "{route}": {why}'
        raise Refuse(Reply(400, text.encode(), "text/plain; charset=utf-8"))

    def _error(self, *tags: str, **more: Any) -> None:
        """Refuse with a union of unions: ("path", "not_found")."""
        inner: Any = {".tag": tags[-1], **more}
        for outer in reversed(tags[:-1]):
            inner = {".tag": outer, outer: inner}
        raise Refuse(Reply.json(409, {"error_summary": "/".join(tags) + "/..", "error": inner}))

    def _metadata(self, key: str, tagged: bool = True) -> dict[str, Any]:
        entry = self.entries[key]
        shown = {"name": entry.shown.rsplit("/", 1)[-1], "path_lower": key, "path_display": entry.shown, "id": entry.id}
        if entry.content is None:
            return {".tag": "folder", **shown}
        times = {"client_modified": entry.at, "server_modified": entry.at, "is_downloadable": True}
        found = {**shown, **times, "rev": entry.rev, "size": entry.content.size, "content_hash": _hash(entry.content)}
        return {".tag": "file", **found} if tagged else found

    def _commit(self, commit: Mapping[str, Any], content: Content, refuse: Callable[..., None]) -> Reply:
        """Make a file of uploaded bytes if the mode of writing allows it."""
        path, mode = commit["path"], commit.get("mode", "add")
        tag, strict = mode if isinstance(mode, str) else mode[".tag"], commit.get("strict_conflict", False)
        key = path.lower()
        if any((above := self.entries.get(parent)) and above.content for parent in parents(key)):
            refuse("conflict", {".tag": "file_ancestor"})
        there = self.entries.get(key)
        if there is not None and there.content is None:
            refuse("conflict", {".tag": "folder"})
        same = there is not None and there.content is not None and _hash(there.content) == _hash(content)
        if tag == "add" and there is not None:
            if same and not strict:
                return Reply.json(200, self._metadata(key, tagged=False))
            refuse("conflict", {".tag": "file"})
        if tag == "update" and (there is None or there.rev != mode["update"]) and (strict or not same):
            refuse("conflict", {".tag": "file"})
        self._folders(path)
        self._rev += 1
        shown = self.entries[path.lower().rpartition("/")[0]].shown if path.count("/") > 1 else ""
        name = there.shown if there else f"{shown}/{path.rpartition('/')[2]}"
        made = there.id if there else "id:" + uuid4().hex[:22]
        born = there.born if there else time.monotonic()
        self.entries[key] = Entry(name, made, content, f"{self._rev:x}", now(), born)
        return Reply.json(200, self._metadata(key, tagged=False))

    def _folders(self, path: str) -> None:
        shown = ""
        for part in path.split("/")[1:-1]:
            entry = self.entries.setdefault(
                f"{shown}/{part}".lower(), Entry(f"{shown}/{part}", "id:" + uuid4().hex[:22], born=time.monotonic())
            )
            shown = entry.shown

    def _upload(self, arg: Mapping[str, Any], request: Request) -> Reply:
        def refuse(tag: str, inner: Any) -> None:
            reason = {".tag": tag, tag: inner}
            error = {".tag": "path", "reason": reason, "upload_session_id": "AAA"}
            raise Refuse(Reply.json(409, {"error_summary": f"path/{tag}/{inner['.tag']}/..", "error": error}))

        return self._commit(arg, self.content(request.body), refuse)

    def _start(self, arg: Mapping[str, Any], request: Request) -> Reply:
        if arg.get("session_type") == {".tag": "concurrent"}:
            self._bad("files/upload_session/start", "this fake has no concurrent sessions")
        id = "pid_upload_session:" + uuid4().hex
        self.sessions[id] = Started(self.content(request.body), arg.get("close", False))
        return Reply.json(200, {"session_id": id})

    def _session(self, arg: Mapping[str, Any], *tags: str) -> Started:
        cursor = arg["cursor"]
        if set(cursor) != {"session_id", "offset"}:
            self._bad("files/upload_session", f"cursor: {sorted(cursor)}")
        session = self.sessions.get(cursor["session_id"])
        if session is None:
            self._error(*tags, "not_found")
            raise AssertionError
        if cursor["offset"] != session.content.size:
            self._error(*tags, "incorrect_offset", correct_offset=session.content.size)
        return session

    def _append(self, arg: Mapping[str, Any], request: Request) -> Reply:
        session = self._session(arg)
        if session.closed:
            self._error("closed")
        session.content.append(request.body)
        session.closed = arg.get("close", False)
        return Reply.json(200, None)

    def _finish(self, arg: Mapping[str, Any], request: Request) -> Reply:
        self._known("files/upload", arg["commit"], _COMMIT)
        session = self._session(arg, "lookup_failed")
        session.content.append(request.body)

        def refuse(tag: str, inner: Any) -> None:
            self._error("path", tag, **{tag: inner})

        reply = self._commit(arg["commit"], session.content, refuse)
        del self.sessions[arg["cursor"]["session_id"]]
        return reply

    def _find(self, path: str, *tags: str) -> tuple[str, Entry]:
        if path.startswith("rev:"):
            path = next((key for key, entry in self.entries.items() if path == f"rev:{entry.rev}"), "")
        entry = self.entries.get(path.lower())
        if entry is None:
            self._error(*tags, "not_found")
            raise AssertionError
        return path.lower(), entry

    def _download(self, arg: Mapping[str, Any], request: Request) -> Reply:
        key, entry = self._find(arg["path"], "path")
        if entry.content is None:
            self._error("path", "not_file")
            raise AssertionError
        headers = {"Dropbox-API-Result": json.dumps(self._metadata(key, tagged=False)), "ETag": f'"{entry.rev}"'}
        if not (part := request.headers.get("range")):
            return Reply(200, entry.content.read(), "application/octet-stream", headers)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", part)
        size = entry.content.size
        if match is None or int(match[1]) >= size:
            return Reply(416, b"Requested Range Not Satisfiable", "text/plain", {"Content-Range": f"bytes */{size}"})
        end = min(int(match[2]) + 1 if match[2] else size, size)
        headers["Content-Range"] = f"bytes {match[1]}-{end - 1}/{size}"
        return Reply(206, entry.content.read(int(match[1]), end), "application/octet-stream", headers)

    def _get_metadata(self, arg: Mapping[str, Any], _: Request) -> Reply:
        return Reply.json(200, self._metadata(self._find(arg["path"], "path")[0]))

    def _delete(self, arg: Mapping[str, Any], _: Request) -> Reply:
        key, entry = self._find(arg["path"], "path_lookup")
        if arg.get("parent_rev") not in (None, entry.rev):
            self._error("path_write", "conflict", conflict={".tag": "file"})
        found = self._metadata(key)
        for gone in [path for path in self.entries if path == key or path.startswith(key + "/")]:
            del self.entries[gone]
        return Reply.json(200, {"metadata": found})

    def _move(self, arg: Mapping[str, Any], _: Request) -> Reply:
        key, _entry = self._find(arg["from_path"], "from_lookup")
        to = arg["to_path"]
        if to.lower() in self.entries:
            self._error("to", "conflict", conflict={".tag": "file" if self.entries[to.lower()].content else "folder"})
        self._folders(to)
        for path in [path for path in self.entries if path == key or path.startswith(key + "/")]:
            entry = self.entries.pop(path)
            entry.shown = to + entry.shown[len(key) :]
            self.entries[entry.shown.lower()] = entry
        return Reply.json(200, {"metadata": self._metadata(to.lower())})

    def _list(self, arg: Mapping[str, Any], _: Request) -> Reply:
        top, limit = arg["path"].lower(), arg.get("limit") or self.page
        if not 1 <= limit <= 2000:
            self._bad("files/list_folder", f"limit: {limit} is not within range")
        if top and self._find(arg["path"], "path")[1].content is not None:
            self._error("path", "not_folder")
        young = time.monotonic() - self.lag_s
        keys = [key for key, entry in self.entries.items() if key.startswith(top + "/") and entry.born <= young]
        if not arg.get("recursive"):
            keys = [key for key in keys if "/" not in key[len(top) + 1 :]]
        elif top:
            keys.insert(0, top)  # a recursive list begins with the folder itself
        cursor = "AAE" + uuid4().hex
        self.cursors[cursor] = [self._metadata(key) for key in keys]
        return self._continue({"cursor": cursor}, _, min(limit, self.page))

    def _continue(self, arg: Mapping[str, Any], _: Request, limit: int | None = None) -> Reply:
        waiting = self.cursors.get(arg["cursor"])
        if waiting is None:
            self._error("reset")
            raise AssertionError
        page, rest = waiting[: limit or self.page], waiting[limit or self.page :]
        cursor = "AAE" + uuid4().hex
        self.cursors[cursor] = rest
        return Reply.json(200, {"entries": page, "cursor": cursor, "has_more": bool(rest)})


_DO: Mapping[str, Callable[[FakeDropbox, Mapping[str, Any], Request], Reply]] = {
    "files/upload": FakeDropbox._upload,
    "files/upload_session/start": FakeDropbox._start,
    "files/upload_session/append_v2": FakeDropbox._append,
    "files/upload_session/finish": FakeDropbox._finish,
    "files/download": FakeDropbox._download,
    "files/get_metadata": FakeDropbox._get_metadata,
    "files/delete_v2": FakeDropbox._delete,
    "files/move_v2": FakeDropbox._move,
    "files/list_folder": FakeDropbox._list,
    "files/list_folder/continue": FakeDropbox._continue,
}


def parents(path: str) -> Iterator[str]:
    """Yield the folders above a path."""
    while (path := path.rpartition("/")[0]) != "":
        yield path


def content_hash(file: BinaryIO) -> str:
    """Return Dropbox's hash: SHA-256 of the SHA-256 of every 4 MiB."""
    whole = hashlib.sha256()
    while block := file.read(4 * _MIB):
        whole.update(hashlib.sha256(block).digest())
    return whole.hexdigest()


def _hash(content: Content) -> str:
    return content.digest("dropbox", content_hash)


@contextmanager
def fake_dropbox(folder: Path) -> Iterator[FakeDropbox]:
    """Run one for the length of a block."""
    server = FakeDropbox(folder)
    server.start()
    try:
        yield server
    finally:
        server.close()


if __name__ == "__main__":
    import tempfile

    said = arguments("Dropbox")
    with tempfile.TemporaryDirectory() as place:
        dropbox = FakeDropbox(Path(place), said.port)
        adjust(dropbox, said)
        serve(dropbox, dropbox.environment)
