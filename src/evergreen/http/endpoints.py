"""The table of the API: every path, who may call it, what it takes and gives. Routes and documents are made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from evergreen.core.errors import EvergreenError, Unavailable
from evergreen.http import api, experiments, outcomes, shapes
from evergreen.http.auth import Role
from evergreen.http.docs import POLICY, page
from evergreen.http.openapi import document
from evergreen.http.pages.render import marks
from evergreen.http.serving import Serving
from evergreen.http.ways import Endpoint, Way
from evergreen.logs import concerning


async def _in_front(_: Serving, request: Request, __: Any) -> Response:
    """Stand in for a path that `hot` answers for every loop there is."""
    raise Unavailable(f"{request.url.path} is answered elsewhere")


async def _openapi(serving: Serving, _: Request) -> Response:
    """Describe this API for programs."""
    return api.reply(await serving.run(document, serving))


async def _docs(serving: Serving, request: Request) -> Response:
    """Describe this API for people."""
    root = str(request.scope.get("root_path", "")).rstrip("/")
    html = await serving.run(lambda: page(document(serving), marks(), root))
    return HTMLResponse(html, headers={"Content-Security-Policy": POLICY})


_PREDICTION = {"input": {"age": 41, "income": 52000}, "unit": "user-7"}
_SAMPLE = {"id": "2024-05-01/17", "input": {"age": 41, "income": 52000}, "label": "yes", "consent": True}

ENDPOINTS = (
    Endpoint(
        "POST",
        "/api/{loop}/predict",
        _in_front,
        Role.APP,
        "Answer one input, or up to 1,000. What was answered is stored, where consent is not needed or was given.",
        takes=(shapes.Prediction, shapes.Predictions, dict[str, Any]),
        gives=(shapes.Predicted, shapes.ManyPredicted),
        errors=(500, 503),
        example=_PREDICTION,
        changes=False,  # what was asked is written down as a sample
    ),
    Endpoint(
        "POST",
        "/api/{loop}/samples",
        _in_front,
        Role.APP,
        "Store samples, all or none; answered once they are safe on disk. The same id twice is one sample. "
        "NDJSON (application/x-ndjson) is read too; an Idempotency-Key header is the id of a single sample.",
        takes=(dict[str, Any], list[dict[str, Any]]),
        gives=(shapes.Stored,),
        errors=(503,),
        example=_SAMPLE,
    ),
    Endpoint(
        "POST",
        "/api/{loop}/feedback",
        outcomes.feedback,
        Role.APP,
        "Say what came of a prediction: what would have been right, or how well it did as a figure. The same twice "
        "counts once, another label replaces the first.",
        takes=(shapes.Feedback,),
        gives=(shapes.Joined,),
        errors=(503,),
        example={"id": "0190a3…", "label": "yes"},
    ),
    Endpoint(
        "POST",
        "/api/{loop}/uploads",
        api.upload,
        Role.APP,
        "Send in a model that a device trained. It is examined in a locked-down process, scored, and waits for the "
        "next training; or it is refused with the reason. The same file twice is one upload.",
        takes=(shapes.ModelFile,),
        gives=(shapes.UploadOut,),
        errors=(503,),
        body="multipart/form-data",
    ),
    Endpoint(
        "GET",
        "/api/{loop}/uploads",
        api.uploaded,
        Role.APP,
        "Models from devices, newest first: what became of each, and why.",
        gives=(shapes.Uploads,),
    ),
    Endpoint(
        "POST",
        "/api/{loop}/train",
        api.train,
        Role.OPERATOR,
        "Ask for a training.",
        takes=(shapes.Training,),
        gives=(shapes.Asked,),
        status=202,
        errors=(409,),
        example={"force": True, "why": "new labels came in"},
    ),
    Endpoint(
        "POST",
        "/api/{loop}/cancel",
        api.cancel,
        Role.OPERATOR,
        "Stop the training that waits or runs.",
        takes=(shapes.Because,),
        gives=(shapes.Asked,),
        errors=(409,),
        example={"why": "started by mistake"},
    ),
    Endpoint(
        "POST",
        "/api/{loop}/promote",
        api.promote,
        Role.OPERATOR,
        "Make a version champion, now. Once this is answered, no other version answers.",
        takes=(shapes.Promotion,),
        gives=(shapes.ModelOut,),
        errors=(409, 500),
        example={"version": 3, "why": "looked at its report"},
    ),
    Endpoint(
        "POST",
        "/api/{loop}/rollback",
        api.rollback,
        Role.OPERATOR,
        "Take a challenger back, or else put the former champion back, now.",
        takes=(shapes.Because,),
        gives=(shapes.ModelOut,),
        errors=(409, 500),
        example={"why": "users complain"},
    ),
    Endpoint(
        "POST",
        "/api/{loop}/experiment",
        experiments.start_experiment,
        Role.OPERATOR,
        "Put versions beside the champion, each before a share of the units, until evidence or a deadline ends it.",
        takes=(experiments.Experiment,),
        gives=(experiments.ExperimentOut,),
        status=201,
        errors=(409,),
        example={"versions": [3, 4], "shares": [0.2, 0.2], "why": "two candidates", "deadline": "7d"},
    ),
    Endpoint(
        "POST",
        "/api/{loop}/experiment/stop",
        experiments.stop_experiment,
        Role.OPERATOR,
        "End the experiment that is running.",
        takes=(shapes.Because,),
        gives=(experiments.ExperimentOut,),
        example={"why": "enough was seen"},
    ),
    Endpoint(
        "GET",
        "/api/{loop}/experiment",
        experiments.experiment,
        Role.APP,
        "How the newest experiment stands: who was exposed, estimates with intervals, what follows.",
        gives=(experiments.ExperimentOut,),
    ),
    Endpoint(
        "GET", "/api/{loop}/training/status", api.status, Role.APP, "Where the loop stands.", gives=(dict[str, Any],)
    ),
    Endpoint(
        "GET", "/api/{loop}/status", api.status, Role.APP, "The same, under a shorter name.", gives=(dict[str, Any],)
    ),
    Endpoint("GET", "/api/{loop}/models", api.models, Role.APP, "Versions, newest first.", gives=(shapes.Models,)),
    Endpoint(
        "GET",
        "/api/{loop}/models/{v}/download",
        api.download,
        Role.OPERATOR,
        "The artifact of a version, as a zip file.",
        errors=(500,),
        media="application/zip",
    ),
    Endpoint("GET", "/api/{loop}/rollout", api.rollout, Role.APP, "Who answers now.", gives=(shapes.Rollout,)),
    Endpoint(
        "GET",
        "/api/{loop}/drift",
        api.drift,
        Role.APP,
        "Whether live traffic is still what the champion learnt from: alarm, features with their counts, quality, and "
        "`violations` in the shape that monitors share.",
        gives=(dict[str, Any],),
    ),
    Endpoint(
        "GET",
        "/api/{loop}/history",
        api.history,
        Role.APP,
        "What happened and why, newest first.",
        gives=(shapes.History,),
        query={"limit": "At most this many events, 1 to 500.", "before": "Only events before this `seq`."},
    ),
    Endpoint("GET", "/health", api.health, Role.NONE, "How the server is.", gives=(shapes.Health,)),
    Endpoint("GET", "/metrics", api.metrics, Role.APP, "Figures for Prometheus.", media="text/plain"),
    Endpoint("GET", "/openapi.json", _openapi, Role.NONE, "This API, for programs.", gives=(dict[str, Any],)),
    Endpoint("GET", "/docs", _docs, Role.NONE, "This API, for people.", media="text/html"),
)


def routes(serving: Serving) -> list[Way]:
    """Make a route of every line."""
    return [Way(e, _endpoint(serving, e)) for e in ENDPOINTS]


def _endpoint(serving: Serving, e: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Find the loop, and count how it ended."""

    async def plain(request: Request) -> Response:
        response: Response = await e.handler(serving, request)
        return response

    async def of_loop(request: Request) -> Response:
        loop = serving.loop(request.path_params["loop"])
        requests = serving.desks[loop.name].meter.requests
        operation = e.handler.__name__
        try:
            with concerning(loop=loop.name):
                response: Response = await e.handler(serving, request, loop)
        except EvergreenError as error:
            requests[operation, error.status] += 1
            raise
        requests[operation, response.status_code] += 1
        return response

    return of_loop if e.of_loop else plain
