"""The ASGI application: hot paths in front, then doors, the API and the pages behind one edge."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from evergreen.core.errors import EvergreenError
from evergreen.http.edge import Edge
from evergreen.http.endpoints import routes
from evergreen.http.errors import explain
from evergreen.http.hot import Claim, Hot
from evergreen.http.proxies import Proxies
from evergreen.http.serving import Serving
from evergreen.http.ways import Endpoint, declared

_ERRORS = (EvergreenError, HTTPException, msgspec.ValidationError, msgspec.DecodeError, ValidationError, Exception)


def build(serving: Serving) -> ASGIApp:
    """Put the application together. A door's own paths win over ours."""
    from evergreen.http.pages.render import STATIC
    from evergreen.http.pages.routes import Pages

    doors: list[BaseRoute] = []
    claims: dict[tuple[str, str], Claim] = {}
    for door in serving.project.doors:
        # A door learns what it serves when it is asked for its routes; only then is it asked what it claims.
        doors += door.routes(serving) if hasattr(door, "routes") else []
        claims.update(getattr(door, "hot", {}))
    pages = Pages(serving)
    ours = [*routes(serving), *pages.routes()]
    static = Mount("/static", StaticFiles(directory=STATIC), name="static")
    ways: dict[str, Endpoint] = {}
    for way in (*(claim.said for claim in claims.values()), *declared([*doors, *ours])):
        ways.setdefault(way.name, way)
    serving.ways = tuple(ways.values())
    app = Starlette(
        routes=[*doors, *ours, static],
        exception_handlers=dict.fromkeys(_ERRORS, _explained),
    )
    app.state.serving, app.state.pages = serving, pages
    whole = Hot(Edge(app, serving, frozenset(path for _, path in claims)), serving, claims)
    proxies = serving.config.http.proxies
    return Proxies(whole, proxies) if proxies else whole


def _explained(request: Request, exc: Any) -> Response:
    status, body, headers = explain(exc)
    if (tell := request.app.state.serving.voice(request.url.path)) is not None:
        status, said = tell(exc)
        return Response(said, status, headers, "application/json")
    told: Response | None = request.app.state.pages.told(request, status, body["error"], headers)
    return told if told is not None else JSONResponse(body, status, headers)
