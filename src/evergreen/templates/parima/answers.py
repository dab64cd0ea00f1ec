"""PARIMA's HTTP paths, with the bodies that its viewers and scripts know."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from evergreen import engine
from evergreen.core.errors import AlreadyWaiting, InvalidInput
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Run
from evergreen.core.states import OPEN_RUNS, RunState
from evergreen.http import api
from evergreen.http.auth import Role
from evergreen.http.errors import explain
from evergreen.http.shapes import Error
from evergreen.http.ways import Endpoint, Way
from evergreen.templates.parima.history import Teller, folder_of
from evergreen.templates.parima.settings import TrainingSettings

if TYPE_CHECKING:
    from starlette.types import Scope

    from evergreen.http.hot import Claim
    from evergreen.http.serving import Serving

#: What a viewer draws when nobody can say better.
FALLBACK = {"lod": 1}
#: Lines of history in the training status.
RECENT = 10
#: Members in which a question may be wrapped.
_WRAPPERS = ("features", "input")

_OBJECT = (dict[str, Any],)
_SCENE = {
    "frustumCoverage": 0.6,
    "occlusionRatio": 0.2,
    "meanVisibleDistance": 14.5,
    "deviceFPS": 58.0,
    "deviceCPULoad": 0.4,
}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Refusal(msgspec.Struct):
    """What is told when something could not be done."""

    success: bool
    error: str


class Undecided(Refusal):
    """The same, with a decision that can be drawn all the same."""

    decision: dict[str, int]


class Answers:
    """The paths of one loop."""

    def __init__(self, serving: Serving, name: str, training: TrainingSettings) -> None:
        self._serving = serving
        self._loop: Loop = serving.loop(name)
        self._desk = serving.desks[name]
        self._training = training
        #: Predictions are stored, so that feedback may refer to them by id.
        self._logged = self._loop.config.serve.log == "all"
        serving.voices["/api/parima/train"] = told
        self._teller = Teller(self._loop, training.log_file)

    def hot(self) -> Mapping[tuple[str, str], Claim]:
        """Return what is asked often."""
        from evergreen.http.hot import Claim

        said = self._said(
            "POST",
            "/api/parima/predict",
            self.predict,
            Role.APP,
            "Decide a level of detail. Whatever is wrong, the answer holds one that can be drawn.",
            takes=_OBJECT,
            refuses=Undecided,
            errors=(500, 503),
            example=_SCENE,
            changes=False,
        )
        return {("POST", said.path): Claim(self.predict, self._refuse, said)}

    def routes(self) -> list[Way]:
        """Return the rest."""
        said = self._said
        wish: dict[str, Any] = {"takes": _OBJECT, "errors": (409,), "example": {"force": True}}
        table = [
            said("POST", "/api/parima/train", self.train, Role.OPERATOR, "Ask for a training.", **wish),
            said("GET", "/api/parima/training/status", self.status, Role.APP, "Whether a training runs."),
            said("GET", "/health", self.health, Role.NONE, "How the server is.", refuses=Error),
        ]
        return [Way(one, self._shaped(one.handler)) for one in table]

    def _said(self, *line: Any, **more: Any) -> Endpoint:
        """Make a line of the table: answers are objects, errors are told in PARIMA's shape."""
        return Endpoint(*line, **{"gives": _OBJECT, "refuses": Refusal, "loop": self._loop.name, **more})

    # Predict

    async def predict(self, _: Scope, body: bytes) -> tuple[int, bytes]:
        """Decide a level of detail; whatever is wrong, the answer holds one that can be drawn."""
        start = time.perf_counter()
        meter = self._desk.meter
        try:
            id = self._serving.ids.new()
            (answer,) = await self._desk.predict((self._question(body),), (id,))
            said = {
                "success": True,
                "decision": {"lod": answer.output["label"]},
                "confidence": answer.output["confidence"],
                "model_version": answer.model.version,
            }
            if self._logged:
                said["id"] = id
        except Exception as e:  # noqa: BLE001 - explained to the caller, and logged where nobody expected it
            return self._refuse(e)
        meter.requests["predict", 200] += 1
        meter.took(time.perf_counter() - start)
        return 200, _encode(said)

    def _refuse(self, exc: Exception) -> tuple[int, bytes]:
        """Say what is wrong, with a decision that can be drawn all the same."""
        status, said = refusal(exc)
        self._desk.meter.requests["predict", status] += 1
        return status, _encode({**said, "decision": FALLBACK})

    def _question(self, body: bytes) -> Json:
        """Read the features: flat as they are documented, or wrapped."""
        try:
            asked = _decode(body)
        except msgspec.DecodeError as e:
            raise self._closer(body) or _no_json(e) from e
        except (UnicodeDecodeError, RecursionError) as e:
            raise _no_json(e) from e
        if not isinstance(asked, dict):
            raise InvalidInput("the body is not a JSON object with the five features", field="body")
        for wrapper in _WRAPPERS:
            if isinstance(inner := asked.get(wrapper), dict):
                around = {key: value for key, value in asked.items() if key != wrapper}
                return {**around, **inner}
        return asked

    def _closer(self, body: bytes) -> InvalidInput | None:
        """Look for the NaN or Infinity that some programs write into JSON, so that the error can name the field."""
        try:
            self._loop.recipe.check(json.loads(body))
        except InvalidInput as e:
            return e
        except (ValueError, RecursionError):
            return None
        return InvalidInput("the body holds NaN or Infinity, which JSON cannot say", field="body")

    # Train

    async def train(self, request: Request) -> tuple[int, Any]:
        """Ask for a training; it begins within moments."""
        by = self._serving.caller(request).name
        wish = _wish(await request.body())
        force = wish.get("force")
        if force is not None and not isinstance(force, bool):
            raise InvalidInput(f"force is {force!r}, neither true nor false", field="force")
        try:
            await self._serving.act(
                engine.ask,
                self._loop,
                by=by,
                why="asked over HTTP",
                force=bool(force),
                overrides=self._model(wish.get("model_type")),
                file=self._file(wish.get("csv_path")),
            )
        except AlreadyWaiting as e:
            return 409, {"success": False, "error": str(e), "status": "training_in_progress"}
        return 200, {
            "success": True,
            "message": "Training started in background",
            "status": "training_in_progress",
        }

    def _model(self, model_type: Json) -> dict[str, Json]:
        if model_type is None:
            return {}
        choices = get_args(type(self._loop.recipe).Options.model_fields["model"].annotation)
        if model_type not in choices:
            said = f"model_type is {model_type!r}; it may be one of {', '.join(choices)}"
            raise InvalidInput(said, field="model_type")
        return {"model": model_type}

    def _file(self, csv_path: Json) -> Path | None:
        if csv_path is None:
            return None
        if not isinstance(csv_path, str) or not csv_path.strip():
            raise InvalidInput(f"csv_path is {csv_path!r}, not the path of a file", field="csv_path")
        try:
            (self._loop.home / csv_path).resolve().stat()
        except FileNotFoundError:
            pass  # told by whoever knows in which folders it may lie
        except (OSError, RuntimeError, ValueError) as e:
            raise InvalidInput(f"csv_path is not the path of a file: {e}", field="csv_path") from e
        return Path(csv_path)

    # Status

    async def status(self, _: Request) -> tuple[int, Any]:
        """Say whether a training runs, and what came of the last ones."""
        return 200, await self._serving.run(self._status)

    def _status(self) -> dict[str, Any]:
        trigger = self._loop.config.trigger
        hours = self._training.auto_train_interval_hours
        return {
            "training_in_progress": self._training_now(),
            "last_training_time": self._last_time(),
            "auto_training_enabled": trigger.auto,
            "auto_training_interval_hours": int(hours) if hours == int(hours) else hours,
            "min_samples_required": trigger.min_size,
            "recent_training_history": self._teller.recent(RECENT),
        }

    async def health(self, request: Request) -> tuple[int, Any]:
        """Say how the server is: PARIMA's figures beside Evergreen's own."""
        native = _decode((await api.health(self._serving, request)).body)
        return 200, await self._serving.run(self._health, native)

    def _health(self, native: dict[str, Any]) -> dict[str, Any]:
        champion = self._serving.lives[self._loop.name].lineup.champion
        return {
            **native,
            "status": "healthy" if native["status"] == "ok" else native["status"],
            "model_loaded": champion is not None,
            "model_path": None if champion is None else str(folder_of(self._loop, champion.model)),
            "last_training_time": self._last_time(),
            "training_in_progress": self._training_now(),
            "auto_training_enabled": self._loop.config.trigger.auto,
        }

    def _training_now(self) -> bool:
        return self._loop.ledger.last(Run, self._loop.name, *OPEN_RUNS) is not None

    def _last_time(self) -> str | None:
        last = self._loop.ledger.last(Run, self._loop.name, RunState.SUCCEEDED)
        return last.ended.isoformat() if last is not None and last.ended is not None else None

    def _shaped(
        self, handler: Callable[[Request], Awaitable[tuple[int, Any]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Answer errors in PARIMA's shape, too, and count how it ended."""

        async def shaped(request: Request) -> Response:
            try:
                status, said = await handler(request)
            except Exception as e:  # noqa: BLE001 - as above
                status, said = refusal(e)
            self._desk.meter.requests[handler.__name__, status] += 1
            return api.reply(said, status)

        return shaped


def refusal(exc: Exception) -> tuple[int, dict[str, Any]]:
    """Say in PARIMA's shape what went wrong."""
    status, body, _ = explain(exc)
    error = body["error"]
    return status, {"success": False, "error": ". ".join(filter(None, (error["message"], error["hint"])))}


def told(exc: Exception) -> tuple[int, bytes]:
    """Say the same as bytes."""
    status, said = refusal(exc)
    return status, _encode(said)


def _no_json(e: Exception) -> InvalidInput:
    return InvalidInput(f"the body is not JSON: {e}", field="body")


def _wish(body: bytes) -> Mapping[str, Json]:
    """Read the body of a wish for a training; there may be none."""
    if not body.strip():
        return {}
    try:
        wish = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise _no_json(e) from e
    if not isinstance(wish, dict):
        raise InvalidInput('the body is not a JSON object: send {"force": true}, for example, or nothing', field="body")
    return wish
