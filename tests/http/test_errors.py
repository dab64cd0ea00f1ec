"""One shape for every error, whoever raises it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from http_harness import MEMORY, PLAIN, App
from pydantic import BaseModel, ValidationError

from evergreen.core import errors
from evergreen.http.errors import explain


class Form(BaseModel):
    version: int


def pydantic_error() -> ValidationError:
    try:
        Form(version="x")  # type: ignore[arg-type]
    except ValidationError as e:
        return e
    raise AssertionError


def shape_of(body: Any) -> dict[str, Any]:
    assert list(body) == ["error"]
    assert set(body["error"]) == {"code", "message", "field", "hint"}
    assert body["error"]["code"]
    assert body["error"]["message"]
    return dict(body["error"])


# method, path, what is sent; status, code, field
TABLE: list[tuple[str, str, dict[str, Any], int, str, str | None]] = [
    ("GET", "/nowhere", {}, 404, "not_found", None),
    ("DELETE", "/api/toy/train", {}, 405, "method_not_allowed", None),
    ("GET", "/api/toy/predict", {}, 405, "method_not_allowed", None),
    ("POST", "/api/nobody/predict", {"json": {}}, 404, "not_found", "loop"),
    ("POST", "/api/nobody/samples", {"json": {}}, 404, "not_found", "loop"),
    ("POST", "/api/nobody/train", {"json": {}}, 404, "not_found", "loop"),
    ("GET", "/api/nobody/models", {}, 404, "not_found", "loop"),
    ("GET", "/api/toy/models/7/download", {}, 404, "not_found", "v"),
    ("GET", "/api/toy/history?limit=none", {}, 400, "invalid_input", "limit"),
    ("GET", "/api/toy/history?before=-1", {}, 400, "invalid_input", "before"),
    ("POST", "/api/toy/predict", {"json": {"input": {"n": "x"}}}, 400, "invalid_input", "n"),
    ("POST", "/api/toy/predict", {"content": b"{"}, 400, "invalid_input", None),
    ("POST", "/api/toy/predict", {"json": {"input": 1}}, 503, "no_model", None),
    ("POST", "/api/toy/samples", {"json": {"label": 1}}, 400, "invalid_input", "input"),
    ("POST", "/api/toy/feedback", {"json": {"label": 1}}, 400, "invalid_input", "id"),
    ("POST", "/api/toy/feedback", {"json": {"id": "x"}}, 400, "invalid_input", "label"),
    ("POST", "/api/toy/feedback", {"json": {"id": "x", "score": "much"}}, 400, "invalid_input", "score"),
    ("POST", "/api/toy/feedback", {"json": {"session": "x", "label": 1}}, 404, "not_found", "session"),
    ("POST", "/api/toy/feedback", {"json": {"id": "x", "label": 1}}, 404, "not_found", "id"),
    ("POST", "/api/toy/feedback", {"json": {"id": "x", "label": 1, "weight": "much"}}, 400, "invalid_input", "weight"),
    ("POST", "/api/toy/promote", {"json": {"version": "three"}}, 400, "invalid_input", "version"),
    ("POST", "/api/toy/promote", {"json": {"version": 3}}, 404, "not_found", None),
    ("POST", "/api/toy/promote", {"content": b"[]"}, 400, "invalid_input", None),
    ("POST", "/api/toy/rollback", {}, 409, "conflict", None),
    ("POST", "/api/toy/cancel", {}, 404, "not_found", None),
    ("POST", "/api/toy/train", {"json": {"overrides": {"colour": 1}}}, 400, "invalid_input", "colour"),
    ("POST", "/api/toy/train", {"json": {"now": True}}, 400, "invalid_input", None),
    ("POST", "/api/toy/train", {"json": {"file": "/etc/passwd"}}, 403, "forbidden", "file"),
    ("POST", "/api/toy/predict", {"headers": {"authorization": "Basic x"}}, 401, "unauthorized", None),
    ("GET", "/health", {"headers": {"x-api-key": "egk_no"}}, 401, "unauthorized", None),
    ("GET", "/health", {"headers": {"host": "elsewhere.example"}}, 403, "forbidden", "Host"),
    ("POST", "/api/toy/train", {"headers": {"origin": "https://x.example"}}, 403, "forbidden", "Origin"),
]


def test_every_error_has_the_one_shape(app: App) -> None:
    for method, path, sent, status, code, field in TABLE:
        said = app.http.request(method, path, **sent)
        error = shape_of(said.json())
        assert (said.status_code, error["code"]) == (status, code), (method, path, said.text)
        if field is not None:
            assert error["field"] == field, (method, path, said.text)
        assert said.headers["content-type"] == "application/json"


def test_a_loop_that_is_not_there_names_those_that_are(app: App) -> None:
    assert "toy" in shape_of(app.http.get("/api/nobody/models").json())["hint"]


def test_the_unexpected_is_logged_under_an_id_and_not_told(
    app: App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(app.project.ledger, "counts", broken)
    with caplog.at_level(logging.ERROR):
        said = app.http.get("/api/toy/training/status")
    error = shape_of(said.json())
    assert (said.status_code, error["code"]) == (500, "internal")
    id = error["message"].partition("(error ")[2].rstrip(")")
    assert "42" not in said.text
    assert any(id in r.getMessage() and r.exc_info for r in caplog.records)


def test_so_on_the_hot_path(app: App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.serving.desks["toy"].live, "answer", lambda *_: 1 / 0)
    said = app.post("/api/toy/predict", {"input": 1})
    assert (said.status_code, shape_of(said.json())["code"]) == (500, "internal")


@pytest.mark.parametrize(
    ("raised", "status", "code", "field"),
    [
        (pydantic_error(), 400, "invalid_input", "version"),
        (msgspec.ValidationError("Expected `int`, got `str` - at `$.a[0].b`"), 400, "invalid_input", "a[0].b"),
        (msgspec.DecodeError("truncated"), 400, "invalid_input", None),
        (errors.Overloaded(), 503, "overloaded", None),
        (errors.Corrupt("bytes differ"), 500, "corrupt", None),
    ],
)
def test_other_peoples_errors_are_put_into_our_words(
    raised: Exception, status: int, code: str, field: str | None
) -> None:
    said, body, _ = explain(raised)
    assert (said, shape_of(body)["code"], body["error"]["field"]) == (status, code, field)


def _classes(cls: type[errors.EvergreenError]) -> list[type[errors.EvergreenError]]:
    mine = [sub for sub in cls.__subclasses__() if sub.__module__ == cls.__module__]
    return [cls, *(one for sub in mine for one in _classes(sub))]


@pytest.mark.parametrize("cls", _classes(errors.EvergreenError))
def test_every_class_of_error_keeps_its_status_and_code(cls: type[errors.EvergreenError]) -> None:
    status, body, headers = explain(cls("it is so"))
    assert (status, shape_of(body)["code"]) == (cls.status, cls.code)
    assert ("Retry-After" in headers) == (status in (429, 503))


def test_a_path_that_no_door_opens_is_refused_to_everybody(start: Callable[..., App]) -> None:
    app = start(MEMORY + '[http]\nanonymous = "none"\n' + PLAIN)
    assert app.http.get("/nowhere").status_code == 404
    assert app.http.get("/api/toy/models").status_code == 401


def test_health_is_told_even_when_the_ledger_is_away(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    app.learn("first")

    def away(*_: Any, **__: Any) -> None:
        raise OSError("the ledger is away")

    monkeypatch.setattr(app.project.ledger, "last", away)
    said = app.http.get("/health")
    assert (said.status_code, said.json()["status"]) == (200, "degraded")
    assert said.json()["loops"]["toy"]["model_loaded"]
    assert app.post("/api/toy/predict", {"input": 1}).status_code == 200


def test_a_request_has_a_name_in_the_answer(app: App) -> None:
    own = app.http.get("/api/toy/status", headers={"X-Request-Id": "order-17"})
    assert own.headers["x-request-id"] == "order-17"
    for odd in ("", "a b", "x" * 101, "a\tb"):
        given = app.http.get("/api/toy/status", headers={"X-Request-Id": odd}).headers["x-request-id"]
        assert len(given) == 16
    refused = app.http.post("/api/toy/predict", content=b"{", headers={"X-Request-Id": "order-18"})
    assert (refused.status_code, refused.headers["x-request-id"]) == (400, "order-18")
