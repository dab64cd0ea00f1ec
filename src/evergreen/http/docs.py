"""The page at /docs: the OpenAPI document as a person reads it, made on the server, without a script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; overflow-wrap: anywhere; }
h2 b { display: inline-block; min-width: 3.5rem; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid var(--line); padding: .25rem .8rem .25rem 0; vertical-align: top; }
summary { cursor: pointer; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: Allows this page its own style sheet and nothing else.
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def page(document: Mapping[str, Any]) -> str:
    """Return the whole page."""
    info = document["info"]
    schemas = document["components"]["schemas"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style>",
        f"<main><h1>{escape(info['title'])} API</h1><p>{escape(info['description'])} Version {escape(info['version'])}. ",
        "For programs: <a href=/openapi.json>openapi.json</a>.</p>",
        "<p>Keys go into the header <code>Authorization: Bearer KEY</code> or <code>X-API-Key: KEY</code>.</p>",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method, path, operation)
    parts.append("<h1>Shapes</h1>")
    for name, schema in schemas.items():
        parts.append(f"<details id='{escape(name)}'><summary>{escape(name)}</summary>{_json(schema)}</details>")
    return "".join([*parts, "</main></html>"])


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<section><h2><b>{escape(method.upper())}</b> <code>{escape(path)}</code></h2><p>{escape(operation['summary'])}"
    if "x-role" in operation:
        yield f" Role: <i>{escape(operation['x-role'])}</i> or above."
    yield "</p>"
    query = [p for p in operation["parameters"] if p["in"] == "query"]
    if query:
        rows = ((p["name"], p.get("description", "")) for p in query)
        yield _table((f"?{name}", text) for name, text in rows)
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        example = content.get("example")
        yield f"<p>{escape(media)}{_shapes(content['schema'])}</p>"
        if example is not None:
            yield f"<pre>{escape(example)}</pre>" if isinstance(example, str) else _json(example)
    yield _table(
        (
            status,
            escape(answer["description"]) + "".join(_shapes(c["schema"]) for c in answer.get("content", {}).values()),
        )
        for status, answer in operation["responses"].items()
    )
    yield "</section>"


def _table(rows: Any) -> str:
    return "<table>" + "".join(f"<tr><td><code>{a}</code><td>{b}" for a, b in rows) + "</table>"


def _shapes(schema: Mapping[str, Any]) -> str:
    """Link the named shapes of a schema."""
    found = [one["$ref"].rpartition("/")[2] for one in (schema, *schema.get("anyOf", ())) if "$ref" in one]
    return "".join(f" <a href='#{escape(name)}'>{escape(name)}</a>" for name in found)


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
