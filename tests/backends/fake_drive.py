"""Google Drive, as far as a store needs it: API v3 with its rules, errors, pages, resumable uploads and late lists."""

from __future__ import annotations

import base64
import email
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent))

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from drive_query import NotAQuery, parse
from fake_server import Content, FakeServer, Fault, Reply, Request, adjust, arguments, serve

CLIENT, SECRET, REFRESH = "client-id", "client-secret", "refresh-token"
ACCOUNT = "worker@project.iam.gserviceaccount.com"
ROOT = "0AROOT"
FOLDER = "application/vnd.google-apps.folder"
_UNIT = 256 * 1024
_ALWAYS = {"alt", "fields", "prettyPrint", "uploadType", "upload_id", "supportsAllDrives"}
_QUERY = {
    "get": {"acknowledgeAbuse"},
    "list": {"q", "pageSize", "pageToken", "orderBy", "spaces", "corpora", "driveId", "includeItemsFromAllDrives"},
    "create": {"keepRevisionForever", "enforceSingleParent"},
    "update": {"addParents", "removeParents", "keepRevisionForever"},
    "delete": {"enforceSingleParent"},
    "generateIds": {"count", "space", "type"},
}
_FIELDS = {
    *("id", "name", "mimeType", "parents", "createdTime", "modifiedTime", "size", "md5Checksum", "sha256Checksum"),
    *("properties", "trashed", "driveId", "version", "kind", "headRevisionId"),
}
_WRITABLE = {"id", "name", "mimeType", "parents", "properties", "trashed", "description"}


class Refuse(Exception):
    """The answer is this error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        error = {"message": message, "domain": "global", "reason": reason}
        self.reply = Reply.json(status, {"error": {"errors": [error], "code": status, "message": message}})


@dataclass
class File:
    """A file or a folder."""

    id: str
    name: str
    kind: str
    parents: list[str]
    content: Content | None
    created: str
    modified: str
    born: float
    properties: dict[str, str] = field(default_factory=dict)
    trashed: bool = False
    version: int = 1

    def view(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"kind": "drive#file", "id": self.id, "name": self.name, "mimeType": self.kind}
        shown |= {"createdTime": self.created, "modifiedTime": self.modified, "version": str(self.version)}
        shown |= {"parents": self.parents, "trashed": self.trashed}
        if self.properties:
            shown["properties"] = self.properties
        if self.content is not None:
            shown["size"] = str(self.content.size)
            for name in ("md5", "sha256"):
                digest = self.content.digest(name, lambda file, n=name: hashlib.file_digest(file, n).hexdigest())
                shown[f"{name}Checksum"] = digest
        return shown


@dataclass
class Upload:
    """A resumable upload under way, or done."""

    said: dict[str, Any]
    file: str | None
    content: Content
    total: int | None
    done: str | None = None


class FakeDrive(FakeServer):
    """One account's Drive."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.files: dict[str, File] = {}
        self.gone: dict[str, tuple[File, float]] = {}
        self.ids: set[str] = set()
        self.uploads: dict[str, Upload] = {}
        self.tokens: dict[str, float] = {}
        self.pages: dict[str, tuple[str, list[str]]] = {}
        self.page = 1000  #: most files of a page

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables with which a store comes here instead."""
        said = {"GOOGLE_CLIENT_ID": CLIENT, "GOOGLE_CLIENT_SECRET": SECRET, "GOOGLE_REFRESH_TOKEN": REFRESH}
        return {"EVERGREEN_DRIVE_ROOT": self.root, **said}

    @property
    def service_account(self) -> str:
        """Return the JSON key of an account that is no person."""
        pem = _key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        about = {"type": "service_account", "project_id": "p", "private_key_id": "1", "client_email": ACCOUNT}
        return json.dumps({**about, "client_id": "1", "private_key": pem.decode(), "token_uri": self.root + "token"})

    def busy(self, seconds: int) -> Reply:
        reply = Refuse(429, "rateLimitExceeded", "Rate Limit Exceeded").reply
        reply.headers = {"Retry-After": str(seconds)}
        return reply

    def accidents(self, line: str) -> list[Fault]:
        slow = Refuse(403, "userRateLimitExceeded", "User Rate Limit Exceeded").reply
        late = Refuse(401, "authError", "Invalid Credentials").reply
        if "/token" in line:
            return list(super().accidents(line))
        return [*super().accidents(line), Fault(reply=slow), Fault(reply=late), Fault(cut_reply=1)]

    def answer(self, request: Request) -> Reply:
        try:
            if request.path == "/token":
                return self._token(dict(parse_qsl(request.body.decode())))
            if "upload_id" in request.query:
                return self._put(request)
            if not request.whole:
                return Reply(400)
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self.tokens.get(token, 0) < time.time():
                raise Refuse(401, "authError", "Invalid Credentials")
            return self._route(request)
        except Refuse as e:
            if e.reply.status == 400:
                self.wrong.append(f"{request.method} {request.path}: {e}")
            return e.reply

    def _token(self, said: Mapping[str, str]) -> Reply:
        problem = None
        if said.get("grant_type") == "refresh_token":
            if (said.get("client_id"), said.get("client_secret")) != (CLIENT, SECRET):
                return Reply.json(401, {"error": "invalid_client", "error_description": "Unauthorized"})
            if said.get("refresh_token") != REFRESH:
                problem = "Token has been expired or revoked."
        elif said.get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            problem = self._jwt(said.get("assertion", ""))
        else:
            return Reply.json(400, {"error": "unsupported_grant_type"})
        if problem:
            return Reply.json(400, {"error": "invalid_grant", "error_description": problem})
        token = f"ya29.{uuid4().hex}"
        self.tokens[token] = time.time() + 3600
        return Reply.json(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _jwt(self, assertion: str) -> str | None:
        _, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in assertion.split("."))
        try:
            signed = assertion.rpartition(".")[0].encode()
            _key().public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return "Invalid JWT Signature."
        said = json.loads(claims)
        if said["iss"] != ACCOUNT or said["aud"] != "https://oauth2.googleapis.com/token" or said["exp"] < time.time():
            return "Invalid JWT"
        return None if "https://www.googleapis.com/auth/drive" in said["scope"].split() else "Invalid scope"

    def _route(self, request: Request) -> Reply:
        match = re.fullmatch(r"(/upload)?/drive/v3/files(?:/([\w-]+))?", request.path)
        if match is None:
            raise Refuse(404, "notFound", f"no such place {request.path}")
        upload, id = bool(match[1]), match[2]
        does = {("GET", False): "list", ("POST", False): "create", ("GET", True): "get"}
        does |= {("PATCH", True): "update", ("DELETE", True): "delete"}
        what = "generateIds" if id == "generateIds" else does.get((request.method, id is not None), "")
        if not what or (upload and what not in ("create", "update")):
            raise Refuse(404, "notFound", f"no such call {request.method} {request.path}")
        if unknown := set(request.query) - _QUERY[what] - _ALWAYS:
            raise Refuse(400, "badRequest", f"unknown parameters {sorted(unknown)} of {what}")
        if upload:
            return self._upload(request, id)
        said = request.json() or {}
        if what in ("create", "update"):
            return self._show(self._save(said, id, None), request)
        if what == "generateIds":
            made = [f"1{uuid4().hex}" for _ in range(int(request.query.get("count", 10)))]
            self.ids |= set(made)
            return Reply.json(200, {"kind": "drive#generatedIds", "space": "drive", "ids": made})
        if what == "list":
            return self._list(request.query)
        return self._delete(id) if what == "delete" else self._get(request, id)

    def _find(self, id: str) -> File:
        if id not in self.files:
            raise Refuse(404, "notFound", f"File not found: {id}.")
        return self.files[id]

    def _get(self, request: Request, id: str) -> Reply:
        if id == "root":
            return Reply.json(200, {"id": ROOT, "mimeType": FOLDER, "trashed": False})
        file = self._find(id)
        if request.query.get("alt") != "media":
            return self._show(file, request)
        if file.content is None:
            raise Refuse(403, "fileNotDownloadable", "Only files with binary content can be downloaded.")
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if part is None:
            return Reply(200, file.content.read(), file.kind)
        start, end, size = int(part[1]), min(int(part[2]) + 1, file.content.size), file.content.size
        if start >= size:
            return Reply(416, b"", "text/html", {"Content-Range": f"bytes */{size}"})
        return Reply(
            206, file.content.read(start, end), file.kind, {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        )

    def _show(self, file: File, request: Request) -> Reply:
        names = set(request.query.get("fields", "kind,id,name,mimeType").split(","))
        return Reply.json(200, self._some(file, names))

    def _some(self, file: File, names: set[str]) -> dict[str, Any]:
        if unknown := names - _FIELDS:
            raise Refuse(400, "invalidParameter", f"Invalid field selection {sorted(unknown)}")
        return {name: value for name, value in file.view().items() if name in names}

    def _check(self, said: Mapping[str, Any], id: str | None) -> None:
        if unknown := set(said) - _WRITABLE:
            raise Refuse(400, "invalid", f"Unknown or read-only fields {sorted(unknown)}")
        for parent in said.get("parents", []):
            if parent not in ("root", ROOT) and self._find(parent).kind != FOLDER:
                raise Refuse(403, "parentNotAFolder", "The specified parent is not a folder.")
        if len(said.get("parents", [])) > 1 or (id is not None and "parents" in said):
            raise Refuse(400, "invalid", "A file has one parent, moved with addParents and removeParents.")
        if sum(len(name) + len(value) > 124 for name, value in said.get("properties", {}).items()):
            raise Refuse(400, "invalid", "Properties are limited to 124 bytes.")
        if id is None and (own := said.get("id")) is not None:
            if own in self.files or own in self.gone:
                raise Refuse(409, "fileIdInUse", "A file already exists with the provided ID.")
            if own not in self.ids:
                raise Refuse(400, "invalid", "The provided file ID is not usable.")

    def _save(self, said: dict[str, Any], id: str | None, content: Content | None, kind: str = "") -> File:
        self._check(said, id)
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        if id is None:
            kind = said.get("mimeType") or kind or "application/octet-stream"
            if content is None and kind != FOLDER:
                content = self.content()
            made = said.get("id") or f"1{uuid4().hex}"
            parents = [ROOT if parent == "root" else parent for parent in said.get("parents", ["root"])]
            file = File(made, said.get("name", "Untitled"), kind, parents, content, at, at, time.monotonic())
            file.properties = dict(said.get("properties", {}))
            self.files[made] = file
            return file
        file = self._find(id)
        file.name, file.trashed = said.get("name", file.name), said.get("trashed", file.trashed)
        file.properties |= said.get("properties", {})
        file.content, file.modified, file.version = content or file.content, at, file.version + 1
        return file

    def _upload(self, request: Request, id: str | None) -> Reply:
        kind = request.headers.get("content-type", "")
        how = request.query.get("uploadType")
        if how == "multipart" and kind.startswith("multipart/related"):
            message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + request.body)
            about, media = message.get_payload()
            content = self.content(media.get_payload(decode=True))
            said = json.loads(about.get_payload(decode=True))
            return self._show(self._save(said, id, content, media.get_content_type()), request)
        if how == "media":
            return self._show(self._save({}, id, self.content(request.body), kind), request)
        if how != "resumable":
            raise Refuse(400, "badRequest", f"uploadType {how} with {kind}")
        said = request.json() or {}
        self._check(said, id)
        key, total = uuid4().hex, request.headers.get("x-upload-content-length")
        self.uploads[key] = Upload(said, id, self.content(), int(total) if total else None)
        fields = request.query.get("fields", "")
        place = f"{self.root[:-1]}{request.path}?uploadType=resumable&upload_id={key}&fields={fields}"
        return Reply(200, headers={"Location": place})

    def _put(self, request: Request) -> Reply:
        """Take a part of a resumable upload, or say how far it is."""
        upload = self.uploads.get(request.query["upload_id"])
        if upload is None:
            raise Refuse(404, "notFound", "no such upload")
        if upload.done is not None:
            return self._show(self._find(upload.done), request)
        if not (part := re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(\d+)", request.headers.get("content-range", ""))):
            raise Refuse(400, "badRequest", f"Content-Range: {request.headers.get('content-range')}")
        total, size = int(part[3]), upload.content.size
        if part[1] is not None:
            start, end = int(part[1]), int(part[2]) + 1
            if request.whole and len(request.body) != end - start:
                raise Refuse(400, "badRequest", f"{len(request.body)} bytes are not {part[0]}")
            if (
                start > size
                or end > total
                or (end < total and (end - start) % _UNIT)
                or upload.total not in (None, total)
            ):
                raise Refuse(400, "badRequest", f"{part[0]} does not go on at {size} in units of {_UNIT}")
            body = request.body if request.whole else request.body[: len(request.body) // _UNIT * _UNIT]
            upload.content.append(body[size - start :])
        if upload.content.size < total:
            so_far = upload.content.size
            return Reply(308, headers={"Range": f"bytes=0-{so_far - 1}"} if so_far else {})
        file = self._save(upload.said, upload.file, upload.content, "application/octet-stream")
        upload.done = file.id
        return self._show(file, request)

    def _delete(self, id: str) -> Reply:
        self._find(id)
        self.gone[id] = (self.files.pop(id), time.monotonic())
        for child in [file.id for file in self.files.values() if id in file.parents]:
            self._delete(child)
        return Reply(204)

    def _list(self, query: Mapping[str, str]) -> Reply:
        asked = re.fullmatch(r"nextPageToken,\s*files\(([\w,]+)\)", query.get("fields", ""))
        size = int(query.get("pageSize", 100))
        if asked is None or not 1 <= size <= 1000:
            raise Refuse(400, "invalidParameter", f"fields={query.get('fields')}, pageSize={size}")
        if "pageToken" in query:
            said, ids = self.pages.get(query["pageToken"], ("", []))
            if said != query.get("q"):
                raise Refuse(400, "invalid", "Invalid Value: pageToken")
        else:
            ids = self._search(query.get("q", ""))
        size = min(size, self.page)
        names = set(asked[1].split(","))
        known = [self.files.get(id) or self.gone[id][0] for id in ids[:size]]
        found: dict[str, Any] = {"files": [self._some(file, names) for file in known]}
        if ids[size:]:
            found["nextPageToken"] = f"~!!~{uuid4().hex}"
            self.pages[found["nextPageToken"]] = (query.get("q", ""), ids[size:])
        return Reply.json(200, found)

    def _search(self, query: str) -> list[str]:
        """Search as Drive does: what is new is not found yet, and what was deleted still is."""
        try:
            test = parse(query.replace("'root'", f"'{ROOT}'"))
        except NotAQuery as e:
            raise Refuse(400, "invalid", f"Invalid Value: {e}") from e
        if any(id not in self.files for id in re.findall(r"'([^']*)' in parents", query) if id not in ("root", ROOT)):
            raise Refuse(404, "notFound", "File not found: .")
        young = time.monotonic() - self.lag_s
        seen = [file for file in self.files.values() if file.born <= young]
        seen += [file for file, when in self.gone.values() if when > young]
        return [file.id for file in seen if test(file.view())]


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@contextmanager
def fake_drive() -> Iterator[FakeDrive]:
    """Run one for the length of a block."""
    server = FakeDrive()
    server.start()
    try:
        yield server
    finally:
        server.close()


if __name__ == "__main__":
    said = arguments("Google Drive")
    drive = FakeDrive(said.port)
    adjust(drive, said)
    serve(drive, drive.environment)
