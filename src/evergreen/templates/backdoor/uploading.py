"""Models that phones send in: taken as multipart forms, and what became of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from evergreen import engine
from evergreen.core.errors import InvalidInput, NotFound, Refused
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Upload
from evergreen.http.auth import Role
from evergreen.templates.backdoor.interactions import pseudonym

if TYPE_CHECKING:
    from evergreen.http.serving import Serving

#: Uploads in a listing, and longest description in characters.
_LISTED, _LONGEST = 200, 2000


class Uploading:
    """The paths of uploads."""

    def __init__(self, serving: Serving, loop: Loop, key: bytes) -> None:
        self._serving = serving
        self._loop = loop
        self._key = key

    async def receive(self, request: Request) -> Upload:
        """Take the file in. Raises `InvalidInput` with the reason for one that is refused."""
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise InvalidInput(
                "the request is no multipart form", field="model", hint="Send model, deviceId, appVersion, description."
            )
        async with request.form(max_files=1, max_fields=20) as form:
            file = form.get("model")
            if not isinstance(file, UploadFile) or not file.filename:
                raise InvalidInput("there is no file", field="model", hint="Send a .mlmodel or .onnx as `model`.")
            device, description = _text(form, "deviceId", 200), _text(form, "description", _LONGEST)
            if not device:
                raise InvalidInput("deviceId is missing", field="deviceId")
            about = {"app_version": _text(form, "appVersion", 200)}
            return await self._serving.run(self._receive, file, pseudonym(self._key, device), description, about)

    def _receive(self, file: UploadFile, subject: str, description: str, about: Mapping[str, Json]) -> Upload:
        """Lay the file down and let it be checked (blocking)."""
        work = self._loop.state / "work"
        work.mkdir(parents=True, exist_ok=True)
        name = Path(str(file.filename)).name
        with tempfile.TemporaryDirectory(prefix="upload-", dir=work) as folder:
            path = Path(folder) / f"model{Path(name).suffix.lower()}"
            with path.open("wb") as out:
                shutil.copyfileobj(file.file, out)
            return engine.receive(
                self._loop, path, name=name, by="phone", subject=subject, description=description, about=about
            )

    async def listing(self, request: Request) -> tuple[int, Any]:
        """List uploads, newest first: a device's own, or all of them for operators."""
        device = request.query_params.get("deviceId")
        if not device and self._serving.role(request) < Role.OPERATOR:
            raise Refused("say which device: ?deviceId=…; only operators see all uploads", field="deviceId")
        found = await self._serving.run(self._loop.ledger.find, Upload, self._loop.name, newest_first=True)
        own = [u for u in found if not device or u.subject == pseudonym(self._key, device)]
        return 200, {"success": True, "uploads": described(own)}

    async def one(self, request: Request) -> tuple[int, Any]:
        """Say what became of one upload; who knows its id may ask."""
        try:
            upload = await self._serving.run(self._loop.ledger.get, Upload, request.path_params["id"])
        except NotFound:
            raise NotFound(f"there is no upload {request.path_params['id']!r}", field="id") from None
        return 200, {"success": True, **described([upload])[0]}


def described(uploads: Sequence[Upload]) -> list[dict[str, Json]]:
    """Describe uploads as plain data."""
    return [
        {
            "id": upload.id,
            "name": upload.name,
            "format": upload.format,
            "size": upload.size,
            "status": upload.state.value,
            "why": upload.error,
            "weight": upload.weight,
            "description": upload.description,
            "scores": dict(upload.scores),
            "uploaded_at": upload.at.isoformat() if upload.at else None,
        }
        for upload in uploads[:_LISTED]
    ]


def _text(form: FormData, name: str, most: int) -> str:
    value = form.get(name, "")
    if not isinstance(value, str) or len(value) > most or "\0" in value:
        raise InvalidInput(f"{name} is not a text of at most {most} characters without NUL", field=name)
    return value.strip()
