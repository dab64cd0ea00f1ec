"""The ASGI application: hot paths in front, then doors, the API and the pages behind one edge."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from evergreen.core.errors import EvergreenError
from evergreen.http.edge import Edge
from evergreen.http.endpoints import routes
from evergreen.http.errors import explain
from evergreen.http.hot import Claim, Hot
from evergreen.http.serving import Serving

_ERRORS = (EvergreenError, HTTPException, msgspec.ValidationError, msgspec.DecodeError, ValidationError, Exception)


def build(serving: Serving) -> ASGIApp:
    """Put the application together. A door's own paths win over ours."""
    from evergreen.http.pages.routes import routes as pages

    doors: list[BaseRoute] = []
    claims: dict[tuple[str, str], Claim] = {}
    for door in serving.project.doors:
        # A door learns what it serves when it is asked for its routes; only then is it asked what it claims.
        doors += door.routes(serving) if hasattr(door, "routes") else []
        claims.update(getattr(door, "hot", {}))
    app = Starlette(
        routes=[*doors, *routes(serving), *pages(serving)],
        exception_handlers=dict.fromkeys(_ERRORS, _explained),
    )
    app.state.serving = serving
    return Hot(Edge(app, serving, frozenset(path for _, path in claims)), serving, claims)


def _explained(request: Request, exc: Any) -> Response:
    status, body, headers = explain(exc)
    if (tell := request.app.state.serving.voice(request.url.path)) is not None:
        status, said = tell(exc)
        return Response(said, status, headers, "application/json")
    return JSONResponse(body, status, headers)
