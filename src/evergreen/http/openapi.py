"""The OpenAPI 3.1 document, made from the table of endpoints and the shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

import evergreen
from evergreen.http import shapes
from evergreen.http.auth import Role

if TYPE_CHECKING:
    from evergreen.http.endpoints import Endpoint
    from evergreen.http.serving import Serving

_SAID = {
    400: "What was sent cannot be used.",
    401: "A key is needed, or this one is not known.",
    403: "The caller may not do this.",
    404: "There is no such loop, prediction or version.",
    409: "The world is not as the caller thought.",
    413: "The body is too large.",
    500: "Something went wrong in the server.",
    503: "Not now; try again (see Retry-After).",
}


def document(serving: Serving, table: Sequence[Endpoint]) -> dict[str, Any]:
    """Describe the API of this server and its loops."""
    taken = [shape for e in table for shape in (*e.takes, *e.gives)]
    schemas, components = msgspec.json.schema_components(
        [*taken, shapes.Error], ref_template="#/components/schemas/{name}"
    )
    known = {_name(shape): schema for shape, schema in zip([*taken, shapes.Error], schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for e in table:
        paths.setdefault(e.path, {})[e.method.lower()] = _operation(serving, e, known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Evergreen",
            "version": evergreen.__version__,
            "description": "Keeps machine-learning models inside live applications fresh.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`evergreen keys create` makes one."},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(serving: Serving, e: Endpoint, known: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{e.method.lower()}{e.path.replace('{', '').replace('}', '')}"),
        "summary": e.summary,
        "parameters": _parameters(serving, e),
        "responses": {str(e.status): _good(e, known), **_bad(e, known)},
    }
    if e.takes:
        operation["requestBody"] = {"required": True, "content": _content(e, known)}
    if e.role > Role.NONE:
        operation["security"] = [{"bearer": []}, {"header": []}]
        if serving.stranger.role >= e.role:
            operation["security"].append({})
        operation["x-role"] = e.role.name.lower()
    return operation


def _parameters(serving: Serving, e: Endpoint) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    if e.of_loop:
        schema: dict[str, Any] = {"type": "string"}
        if serving.project.loops:
            schema["enum"] = list(serving.project.loops)
        parameters.append({"name": "loop", "in": "path", "required": True, "schema": schema})
    if "{v}" in e.path:
        version = {"type": "integer", "minimum": 0}
        parameters.append({"name": "v", "in": "path", "required": True, "schema": version})
    for name, text in e.query.items():
        bounds = (
            {"type": "integer", "minimum": 1, "maximum": 500} if name == "limit" else {"type": "integer", "minimum": 0}
        )
        parameters.append({"name": name, "in": "query", "description": text, "schema": bounds})
    return parameters


def _content(e: Endpoint, known: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {e.body: {"schema": _any(e.takes, known)}}
    if e.example is not None:
        content[e.body]["example"] = e.example
    if e.path.endswith("/samples"):
        content["application/x-ndjson"] = {
            "schema": {"type": "string"},
            "example": msgspec.json.encode(e.example).decode(),
        }
    return content


def _good(e: Endpoint, known: dict[str, Any]) -> dict[str, Any]:
    schema = _any(e.gives, known) if e.gives else {"type": "string"}
    answer: dict[str, Any] = {"description": e.summary, "content": {e.media: {"schema": schema}}}
    if e.path.endswith("/predict"):
        answer["headers"] = {"x-model-version": {"schema": {"type": "integer"}, "description": "Who answered."}}
    return answer


def _bad(e: Endpoint, known: dict[str, Any]) -> dict[str, Any]:
    # A bad Host or Origin, or a key that nobody knows, is refused on every path.
    statuses = {401, 403, *e.errors}
    if e.of_loop:
        statuses.add(404)
    if e.takes or e.query:
        statuses.add(400)
    if e.takes:
        statuses.add(413)
    error = {"application/json": {"schema": known[_name(shapes.Error)]}}
    return {str(s): {"description": _SAID[s], "content": error} for s in sorted(statuses)}


def _any(takes: tuple[Any, ...], known: dict[str, Any]) -> dict[str, Any]:
    found = [known[_name(shape)] for shape in takes]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _name(shape: Any) -> str:
    return str(getattr(shape, "__name__", "")) + repr(shape)
