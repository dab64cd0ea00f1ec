"""The page at /docs: the OpenAPI document as a person reads it, made on the server, without a script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

#: Allows this page our style sheets and nothing else.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(document: Mapping[str, Any], static: Mapping[str, str], root: str = "") -> str:
    """Return the whole page; `static` names the files it is dressed with, `root` is where the server is mounted."""
    info = document["info"]
    schemas = document["components"]["schemas"]
    sheets = "".join(f'<link rel=stylesheet href="{root}{static[name]}">' for name in ("evergreen.css", "charts.css"))
    logo = f"{root}{static['logo.svg']}"
    found = [(m, path, op) for path, methods in document["paths"].items() for m, op in methods.items()]
    parts = [
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=color-scheme content="light dark">',
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f'<title>{escape(info["title"])} API</title><link rel=icon href="{logo}" type="image/svg+xml">{sheets}',
        f'<body><a class=skip href="#main">Skip to the content</a><header class=top><div class=wrap><a class=brand href="{root}/">',
        f'<img src="{logo}" width=32 height=32 alt=""> {escape(info["title"])}</a></div></header>',
        f"<main id=main class='wrap docs' tabindex=-1><h1>{escape(info['title'])} API</h1><p>{escape(info['description'])} ",
        f'Version {escape(info["version"])}. For programs: <a href="{root}/openapi.json">openapi.json</a>.</p>',
        "<p>Keys go into the header <code>Authorization: Bearer KEY</code> or <code>X-API-Key: KEY</code>.</p>",
        "<section class=card aria-labelledby=calls><h2 id=calls>Calls</h2>",
        *(part for method, path, operation in found for part in _operation(method, path, operation)),
        "</section><section class=card aria-labelledby=shapes><h2 id=shapes>Shapes</h2>",
    ]
    for name, schema in schemas.items():
        parts.append(
            f"<details><summary>{escape(name)}</summary><div id='{escape(name)}'>{_json(schema)}</div></details>"
        )
    return "".join([*parts, "</section></main></html>"])


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    role = operation.get("x-role")
    yield f"<details class=call><summary><span class=way><b>{escape(method.upper())}</b> <code>{escape(path)}</code></span>"
    yield f" <span class=badge>{escape(role)} or above</span>" if role else " <span class=badge>everybody</span>"
    first, dot, more = operation["summary"].partition(". ")
    yield f" <span class='meta first'>{escape(first + dot.strip())}</span></summary>"
    yield f"<p>{escape(more)}</p>" if more else ""
    query = [p for p in operation["parameters"] if p["in"] == "query"]
    if query:
        yield "<h3>After the question mark</h3>"
        yield _table((f"?{p['name']}", escape(p.get("description", ""))) for p in query)
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        example = content.get("example")
        yield f"<h3>Send</h3><p>{escape(media)}{_shapes(content['schema'])}</p>"
        if example is not None:
            yield f"<pre>{escape(example)}</pre>" if isinstance(example, str) else _json(example)
    yield "<h3>Answers</h3>"
    yield _table(
        (
            status,
            ("Done." if status.startswith("2") else escape(answer["description"]))
            + "".join(_shapes(c["schema"]) for c in answer.get("content", {}).values()),
        )
        for status, answer in operation["responses"].items()
    )
    yield "</details>"


def _table(rows: Any) -> str:
    cells = "".join(f"<tr><th scope=row><code>{escape(a)}</code></th><td>{b}</td></tr>" for a, b in rows)
    return f"<table class=answers>{cells}</table>"


def _shapes(schema: Mapping[str, Any]) -> str:
    """Link the named shapes of a schema."""
    found = [one["$ref"].rpartition("/")[2] for one in (schema, *schema.get("anyOf", ())) if "$ref" in one]
    return "".join(f" <a href='#{escape(name)}'>{escape(name)}</a>" for name in found)


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
