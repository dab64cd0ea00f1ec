"""The document describes what the server does: schemathesis tries it, and the page shows it."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import schemathesis
from http_harness import App, Process, learn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from evergreen.http.endpoints import ENDPOINTS

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_every_endpoint_is_described(app: App) -> None:
    said = app.http.get("/openapi.json").json()
    assert said["openapi"] == "3.1.0"
    assert {(m.upper(), p) for p, ways in said["paths"].items() for m in ways} == {
        (e.method, e.path) for e in ENDPOINTS
    }
    assert set(said["components"]["schemas"]["ErrorBody"]["properties"]) == {"code", "message", "field", "hint"}
    for ways in said["paths"].values():
        for operation in ways.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/Error")
    names = [o["operationId"] for ways in said["paths"].values() for o in ways.values()]
    assert len(set(names)) == len(names)


def test_examples_are_what_they_illustrate(app: App) -> None:
    app.learn("first")
    said = app.http.get("/openapi.json").json()
    example = said["paths"]["/api/{loop}/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert app.post("/api/toy/predict", example).status_code == 200
    example = said["paths"]["/api/{loop}/samples"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert app.post("/api/toy/samples", example).json()["accepted"] == 1


def test_a_wild_caller_never_breaks_it(launch: Callable[..., Process]) -> None:
    server = launch()
    with httpx.Client(base_url=server.url, timeout=20) as http:
        learn(http, "first")
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")

    for operation in schema.get_all_operations():
        _try(operation.ok().as_strategy())


def _try(cases: SearchStrategy[schemathesis.Case]) -> None:
    @settings(
        max_examples=20,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def each(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    each()


def test_the_page_shows_every_endpoint_without_a_script(app: App) -> None:
    said = app.http.get("/docs")
    assert said.headers["content-type"].startswith("text/html")
    for e in ENDPOINTS:
        assert f"<b>{e.method}</b> <code>{e.path}</code>" in said.text
    assert "<script" not in said.text
    assert "http://" not in said.text
    assert "https://" not in said.text
    for target in set(re.findall(r"href='#(\w+)'", said.text)):
        assert f"id='{target}'" in said.text
