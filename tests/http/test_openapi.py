"""The document describes what the server does: schemathesis tries it, and the page shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from http_harness import PLAIN, App, Process, learn, write
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error as server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from typer.testing import CliRunner

import evergreen
from evergreen.cli.app import app as cli
from evergreen.http import auth
from evergreen.http.endpoints import ENDPOINTS


def not_a_server_error(ctx: Any, response: Any, case: Any) -> bool | None:
    """Allow one answer of its kind: a loop that has learnt nothing yet says so."""
    if response.status_code == 503 and "no model of" in response.text:
        return None
    return server_error(ctx, response, case)


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
    """Nothing is wrong with their shape, nor is anything about them but what they name: it may be unknown here."""
    app.learn("first")
    said = app.http.get("/openapi.json").json()
    told = {}
    for path, ways in said["paths"].items():
        for operation in ways.values():
            example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            if example is not None:
                told[path] = app.post(path.replace("{loop}", "toy"), example).status_code
    assert len(told) > 6
    assert told["/api/{loop}/predict"] == told["/api/{loop}/samples"] == 200
    assert {path: status for path, status in told.items() if status not in (200, 202, 404, 409)} == {}


#: System -> examples of each operation, in `make test` and in `make test-slow`.
EXAMPLES = {"plain": (12, 150), "parima": (6, 75), "backdoor": (4, 50)}


@pytest.mark.parametrize("system", EXAMPLES)
def test_a_wild_caller_never_breaks_it(launch: Callable[..., Process], tmp_path: Path, system: str) -> None:
    _wild(_served(launch, tmp_path / "wild", system), EXAMPLES[system][0])


@pytest.mark.slow
@pytest.mark.parametrize("system", EXAMPLES)
def test_a_wild_caller_who_takes_his_time_never_breaks_it(
    launch: Callable[..., Process], tmp_path: Path, system: str
) -> None:
    _wild(_served(launch, tmp_path / "wild", system), EXAMPLES[system][1])


@pytest.mark.parametrize("role", ["none", "app"])
def test_who_may_not_is_told_so_as_it_is_described(launch: Callable[..., Process], tmp_path: Path, role: str) -> None:
    folder = tmp_path / "locked"
    project = evergreen.open(write(folder, PLAIN))
    _, key = auth.create(project.ledger, "phone", "app")
    project.ledger.close()
    _wild(launch(None, folder=folder), 3, {} if role == "none" else {"X-API-Key": key})


def _served(launch: Callable[..., Process], folder: Path, system: str) -> Process:
    """Serve a system that has learnt something, or one as its template lays it down."""
    if system == "plain":
        server = launch(PLAIN, folder=folder)
        with httpx.Client(base_url=server.url, timeout=20) as http:
            for label in ("first", "second"):  # so that one can be promoted, or stand in an experiment beside the other
                learn(http, label)
        return server
    assert CliRunner().invoke(cli, ["init", "--template", system, str(folder)]).exit_code == 0
    return launch(None, folder=folder)


def _wild(server: Process, examples: int, headers: dict[str, str] | None = None) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    for operation in (found.ok() for found in schema.get_all_operations()):
        _try(operation.as_strategy(), examples, headers)
        with suppress(Unsatisfiable):  # some take nothing, or any text: there is no wrong way to call them
            _try(operation.as_strategy(GenerationMode.NEGATIVE), examples, headers)


def _try(cases: SearchStrategy[schemathesis.Case], examples: int, headers: dict[str, str] | None) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def each(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, headers=headers)

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
