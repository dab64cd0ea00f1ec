"""The OpenAPI 3.1 document, made from the table of endpoints and the shapes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

import evergreen
from evergreen.http.auth import Role

if TYPE_CHECKING:
    from evergreen.http.serving import Serving
    from evergreen.http.ways import Endpoint

_SAID = {
    304: "The caller has it already.",
    400: "What was sent cannot be used.",
    401: "A key is needed, or this one is not known.",
    403: "The caller may not do this.",
    404: "There is no such loop, prediction or version.",
    409: "The world is not as the caller thought.",
    413: "The body is too large.",
    429: "Too many calls; try again (see Retry-After).",
    500: "Something went wrong in the server.",
    503: "Not now; try again (see Retry-After).",
}
#: What stands behind a question mark.
_QUERY: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 500},
    "before": {"type": "integer", "minimum": 0},
}
_TEXT = {"type": "string"}


def document(serving: Serving) -> dict[str, Any]:
    """Describe the API of this server, its loops and its doors."""
    table = [e for e in serving.ways if not e.page and (not e.of_loop or _loops(serving, e) != [])]
    taken = [shape for e in table for shape in (*e.takes, *e.gives, e.refuses)]
    schemas, components = msgspec.json.schema_components(taken, ref_template="#/components/schemas/{name}")
    known = {_name(shape): schema for shape, schema in zip(taken, schemas, strict=True)}
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


def _loops(serving: Serving, e: Endpoint) -> list[str] | None:
    """Name the loops that a path is there for: not those where a door answers in its place. None: any there will be."""
    if not serving.project.loops:
        return None
    doors = {way.name for way in serving.ways}
    return [name for name in serving.project.loops if e.name.replace("{loop}", name) not in doors]


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
        if loops := _loops(serving, e):
            schema["enum"] = loops
        parameters.append({"name": "loop", "in": "path", "required": True, "schema": schema})
    for name in re.findall(r"{(\w+)}", e.path):
        if name != "loop":
            schema = {"type": "integer", "minimum": 0} if name == "v" else {"type": "string", "minLength": 1}
            parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
    for name, text in e.query.items():
        parameters.append({"name": name, "in": "query", "description": text, "schema": _QUERY.get(name, _TEXT)})
    return parameters


def _content(e: Endpoint, known: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {e.body: {"schema": _any(e.takes, known)}}
    if e.example is not None:
        content[e.body]["example"] = e.example
    if e.path == "/api/{loop}/samples":
        content["application/x-ndjson"] = {
            "schema": {"type": "string"},
            "example": msgspec.json.encode(e.example).decode(),
        }
    return content


def _good(e: Endpoint, known: dict[str, Any]) -> dict[str, Any]:
    schema = _any(e.gives, known) if e.gives else {"type": "string"}
    answer: dict[str, Any] = {"description": e.summary, "content": {e.media: {"schema": schema}}}
    if e.path == "/api/{loop}/predict":
        answer["headers"] = {
            "x-model-version": {"schema": {"type": "integer"}, "description": "Who answered."},
            "x-model-generation": {
                "schema": {"type": "integer"},
                "description": "Rises whenever other models come into service; the same in every server process.",
            },
        }
    return answer


def _bad(e: Endpoint, known: dict[str, Any]) -> dict[str, Any]:
    # A bad Host or Origin, a key that nobody knows, or too many calls are refused on every path.
    statuses = {401, 403, 429, *e.errors}
    if e.of_loop:
        statuses.add(404)
    if e.takes or e.query:
        statuses.add(400)
    if e.takes:
        statuses.add(413)
    error = {"application/json": {"schema": known[_name(e.refuses)]}}
    return {str(s): {"description": _SAID[s], "content": error if s >= 400 else {}} for s in sorted(statuses)}


def _any(takes: tuple[Any, ...], known: dict[str, Any]) -> dict[str, Any]:
    found = [known[_name(shape)] for shape in takes]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _name(shape: Any) -> str:
    return str(getattr(shape, "__name__", "")) + repr(shape)
