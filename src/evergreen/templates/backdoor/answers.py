"""Backdoor AI's HTTP paths, with the bodies that its app knows."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from evergreen import engine
from evergreen.core.errors import InvalidInput
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Model, Run, Upload
from evergreen.core.states import RunState, UploadState
from evergreen.http import api
from evergreen.http.auth import Role
from evergreen.http.errors import decode, explain
from evergreen.http.shapes import ModelFile
from evergreen.http.ways import Endpoint, Way
from evergreen.templates.backdoor import interactions, jobs, phone, publishing, uploading, versions
from evergreen.templates.backdoor.interactions import FEW_DEVICES, Census, pseudonym
from evergreen.templates.backdoor.keys import pseudonym_key

if TYPE_CHECKING:
    from starlette.types import Scope

    from evergreen.http.hot import Claim
    from evergreen.http.serving import Serving


class Refusal(msgspec.Struct):
    """What the app is told when something could not be done."""

    success: bool
    error: str
    message: str
    field: str | None
    code: str


_OBJECT = (dict[str, Any],)
_SAID = {"id": "5B2E-1", "userMessage": "wake me at six", "detectedIntent": "set_alarm", "feedback": {"rating": 5}}
_BATCH: dict[str, Any] = {
    "takes": (interactions.Batch,),
    "errors": (503,),
    "example": {"deviceId": "phone-7", "appVersion": "1.4", "interactions": [_SAID]},
}
_FORM: dict[str, Any] = {"takes": (ModelFile,), "body": "multipart/form-data", "errors": (503,)}
_FILE: dict[str, Any] = {"gives": (), "media": "application/octet-stream", "errors": (304, 404, 409, 500)}
_WISH: dict[str, Any] = {"takes": _OBJECT, "errors": (409,), "example": {"reason": "manual", "force": False}}
_DEVICE = {"deviceId": "Which device."}
#: Interactions that are made samples before others have their turn.
_FEW = 100


class Answers:
    """The paths of one loop."""

    def __init__(self, serving: Serving, name: str, url: str) -> None:
        self._serving = serving
        self._loop: Loop = serving.loop(name)
        self._meter = serving.desks[name].meter
        self._url = url.rstrip("/")
        self._key = pseudonym_key(self._loop.state)
        self._census = Census()
        serving.voices["/api/ai/"] = told
        self._uploading = uploading.Uploading(serving, self._loop, self._key)

    def hot(self) -> Mapping[tuple[str, str], Claim]:
        """Return what is asked often."""
        from evergreen.http.hot import Claim

        said = self._said("POST", "/api/ai/learn", self.learn, Role.APP, "Send interactions.", **_BATCH)
        return {("POST", said.path): Claim(self.learn, self._refuse, said)}

    def routes(self) -> list[Way]:
        """Return the rest."""
        app, said, own = Role.APP, self._said, self._uploading
        table = [
            said("POST", uploading.PATH, self.upload_model, app, "Send a model that a phone trained.", **_FORM),
            said(
                "GET",
                "/api/ai/uploads",
                own.listing,
                app,
                "A device's uploads; all of them for operators.",
                query=_DEVICE,
            ),
            said("GET", "/api/ai/uploads/{id}", own.one, app, "What became of an upload.", errors=(404,)),
            said("GET", "/api/ai/latest-model", self.latest_model, app, "The version that phones should run."),
            said("GET", "/api/ai/models", self.models, app, "Versions, newest first."),
            said("GET", "/api/ai/models/{version}", self.download, app, "The file for phones.", **_FILE),
            said("GET", "/api/ai/stats", self.stats, app, "What was collected, learnt and sent in."),
            said("POST", "/api/ai/training/trigger", self.trigger, Role.OPERATOR, "Ask for a training.", **_WISH),
            said("GET", "/api/ai/training/status", self.status, app, "How far trainings are."),
        ]
        return [Way(one, self._shaped(one.handler)) for one in table]

    def _said(self, *line: Any, **more: Any) -> Endpoint:
        """Make a line of the table: answers are objects, errors are told in the app's shape."""
        return Endpoint(*line, **{"gives": _OBJECT, "refuses": Refusal, "loop": self._loop.name, **more})

    # Learn

    async def learn(self, scope: Scope, body: bytes) -> tuple[int, bytes]:
        """Store interactions, all or none; answered once they are safe on disk."""
        batch, sent = interactions.read(decode(body))
        await self._serving.run(self._census.read, self._loop)
        by_device = self._census.devices >= FEW_DEVICES
        device = pseudonym(self._key, batch.deviceId)
        made = []
        for first in range(0, len(sent), _FEW):
            if first:
                await asyncio.sleep(0)
            part = sent[first : first + _FEW]
            made += interactions.samples(self._loop, batch, part, device=device, first=first, by_device=by_device)
        fresh = sum(await self._serving.store(self._loop.name, made)) if made else 0
        known = len(made) - fresh
        message = f"{fresh} interactions received" + (f", {known} known already" if known else "")
        newest = await self._serving.run(self._newest, _root(scope, self._url))
        self._meter.requests["learn", 200] += 1
        return 200, _encoded({"success": True, "message": message, **newest})

    def _refuse(self, exc: Exception) -> tuple[int, bytes]:
        status, said = told(exc)
        self._meter.requests["learn", status] += 1
        return status, said

    def _newest(self, root: str) -> dict[str, Json]:
        """Name the version that phones should run, and where it is; nulls while there is none."""
        found = versions.champion(self._loop)
        if found is None:
            return {"latestModelVersion": None, "modelDownloadURL": None}
        return {"latestModelVersion": found[0], "modelDownloadURL": f"{root}/api/ai/models/{found[0]}"}

    # Models

    async def upload_model(self, request: Request) -> tuple[int, Any]:
        """Take a model from a device: checked and tried in a locked-down process before it is kept."""
        upload = await self._uploading.receive(request)
        newest = await self._serving.run(self._newest, self._root(request))
        message = f"The model was checked and waits for the next training: {upload.name}"
        return 200, {"success": True, "message": message, "id": upload.id, "status": upload.state.value, **newest}

    async def latest_model(self, request: Request) -> tuple[int, Any]:
        """Name the newest version in service."""
        newest = await self._serving.run(self._newest, self._root(request))
        found = await self._serving.run(versions.champion, self._loop)
        message = "This is the newest model." if found else "There is no model yet."
        info = jobs.model_info(*found) if found else None
        return 200, {"success": True, "message": message, **newest, "modelInfo": info}

    async def models(self, _: Request) -> tuple[int, Any]:
        """List the versions, newest first."""
        known = await self._serving.run(versions.all_of, self._loop)
        return 200, {
            "success": True,
            "models": [jobs.model_info(name, model) for name, model in reversed(known)],
        }

    async def download(self, request: Request) -> Response:
        """Hand out the file for phones; its sha256 is its ETag."""
        export = await self._serving.run(self._export, request.path_params["version"])
        etag = f'"{export.sha256}"'
        head = {"etag": etag, "cache-control": "private, no-cache", "x-sha256": export.sha256}
        if etag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=head)
        return FileResponse(export.path, media_type="application/octet-stream", filename=export.name, headers=head)

    def _export(self, name: str) -> phone.Export:
        wanted = name.removesuffix(".mlmodel")
        if wanted == "latest" and (found := versions.champion(self._loop)):
            return phone.of(self._loop, *found)
        model = versions.find(self._loop, wanted)
        return phone.of(self._loop, versions.name_of(self._loop, model), model)

    # Figures

    async def stats(self, _: Request) -> tuple[int, Any]:
        """Count what was collected, learnt and sent in."""
        return 200, await self._serving.run(self._stats)

    def _stats(self) -> dict[str, Json]:
        ledger, name = self._loop.ledger, self._loop.name
        found = versions.champion(self._loop)
        last = ledger.last(Run, name, RunState.SUCCEEDED)
        uploads = Counter(upload.state for upload in ledger.find(Upload, name))
        return {
            "success": True,
            **self._census.read(self._loop),
            "latestModelVersion": found[0] if found else None,
            "lastTrainingDate": last.ended.isoformat() if last and last.ended else None,
            "totalModels": len(ledger.find(Model, name)),
            "incorporatedUserModels": uploads[UploadState.INCORPORATED],
            "userModels": {state.value: uploads[state] for state in UploadState},
        }

    # Training

    async def trigger(self, request: Request) -> tuple[int, Any]:
        """Ask for a training; a trigger file in the folder tells of it within seconds."""
        by = self._serving.require(request, Role.OPERATOR)
        reason, force = wish(await request.body())
        run = await self._serving.act(engine.ask, self._loop, by=by, why=reason, force=force)
        said = jobs.job(self._loop, run, None, None)
        return 200, {"success": True, "message": said["message"], "status": said["status"], "job": said}

    async def status(self, _: Request) -> tuple[int, Any]:
        """Say how far trainings are, and which model is in service."""
        return 200, await self._serving.run(self._status)

    def _status(self) -> dict[str, Json]:
        every = jobs.listed(self._loop)
        found = versions.champion(self._loop)
        return {
            "success": True,
            "status": next((job["status"] for job in every if job["status"] not in jobs.ENDED), "idle"),
            "latestJob": every[0] if every else None,
            "allJobs": every,
            "modelInfo": jobs.model_info(*found) if found else None,
            "figures": publishing.state(self._loop, self._url),
        }

    # How

    def _root(self, request: Request) -> str:
        return _root(request.scope, self._url)

    def _shaped(self, handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        """Answer errors in the app's shape, and count how it ended."""

        async def shaped(request: Request) -> Response:
            try:
                said = await handler(request)
                response = said if isinstance(said, Response) else api.reply(said[1], said[0])
            except Exception as e:  # noqa: BLE001 - explained to the caller, and logged where nobody expected it
                status, why = refusal(e)
                response = api.reply(why, status)
            self._meter.requests[handler.__name__, response.status_code] += 1
            return response

        return shaped


def refusal(exc: Exception) -> tuple[int, dict[str, Any]]:
    """Say in the app's shape what went wrong: `error` and `message` are a sentence, `field` is the place."""
    status, body, _ = explain(exc)
    error = body["error"]
    said = ". ".join(filter(None, (str(error["message"]).rstrip("."), error["hint"])))
    if error["field"] and error["field"] not in said:
        said = f"{error['field']}: {said}"
    return status, {"success": False, "error": said, "message": said, "field": error["field"], "code": error["code"]}


def told(exc: Exception) -> tuple[int, bytes]:
    """Say the same as bytes."""
    status, said = refusal(exc)
    return status, _encoded(said)


def wish(body: bytes) -> tuple[str, bool]:
    """Read reason and force; there may be neither."""
    said = decode(body or b"{}")
    if not isinstance(said, dict):
        raise InvalidInput(
            'the body is not a JSON object: send {"reason": "…", "force": false}, or nothing', field="body"
        )
    reason, force = said.get("reason", "manual"), said.get("force", False)
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= 500:
        raise InvalidInput("reason is not a text of 1 to 500 characters", field="reason")
    if not isinstance(force, bool):
        raise InvalidInput(f"force is {force!r}, neither true nor false", field="force")
    return reason.strip(), force


def _root(scope: Scope, url: str) -> str:
    """Return the address by which the app is reached: the configured one, or the one that was called."""
    if url:
        return url
    headers = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    root = str(scope.get("root_path", "")).rstrip("/")
    return f"{scope.get('scheme', 'http')}://{host}{root}" if host else root


def _encoded(said: Mapping[str, Json]) -> bytes:
    return json.dumps(said).encode()
