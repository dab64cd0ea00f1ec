"""Models that phones send in: taken as multipart forms, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from evergreen import engine
from evergreen.core.errors import InvalidInput, NotFound, Refused
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Upload
from evergreen.http.auth import Role
from evergreen.http.uploads import Form, form, room
from evergreen.stages import collect
from evergreen.templates.backdoor.interactions import pseudonym

if TYPE_CHECKING:
    from evergreen.http.serving import Serving

#: Where phones send models, and how many uploads are listed.
PATH, _LISTED = "/api/ai/upload-model", 200


class Uploading:
    """The paths of uploads."""

    def __init__(self, serving: Serving, loop: Loop, key: bytes) -> None:
        self._serving = serving
        self._loop = loop
        self._key = key
        serving.roomy[PATH] = room(loop)

    async def receive(self, request: Request) -> Upload:
        """Take the file in, once it was examined. Raises `InvalidInput` with the reason for one that is refused.

        Of the device its pseudonym is kept, of the app its version.
        """
        async with self._serving.examinations.place() as turn, form(request, self._loop.state, "model") as sent, turn:
            device = _field(sent, "deviceId", 200)
            if not device:
                raise InvalidInput("deviceId is missing", field="deviceId")
            version = _field(sent, "appVersion", 200)
            return await self._serving.act(
                engine.receive,
                self._loop,
                sent.path,
                name=sent.name,
                by="phone",
                subject=pseudonym(self._key, device),
                description=_field(sent, "description", 2000),
                about={"app_version": version} if version else None,
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
            "why": collect.why(upload) or None,
            "weight": upload.weight,
            "description": upload.description,
            "scores": dict(upload.scores),
            "uploaded_at": upload.at.isoformat() if upload.at else None,
        }
        for upload in uploads[:_LISTED]
    ]


def _field(sent: Form, name: str, most: int) -> str:
    value = sent.fields.get(name, "").strip()
    if len(value) > most or "\0" in value:
        raise InvalidInput(f"{name} is not a text of at most {most} characters without NUL", field=name)
    return value
