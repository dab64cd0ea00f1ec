"""Samples: every way to send them, all or nothing, never counted twice."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from http_harness import MEMORY, PLAIN, App, wait
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evergreen.stages.collect import Intake

ROWS = [{"id": f"r{i}", "input": {"n": i}, "label": "yes"} for i in range(3)]
WAYS: dict[str, Callable[[list[dict[str, Any]]], dict[str, Any]]] = {
    "array": lambda rows: {"json": rows},
    "object": lambda rows: {"json": {"samples": rows}},
    "lines": lambda rows: {
        "content": "\n".join(map(json.dumps, rows)),
        "headers": {"content-type": "application/x-ndjson; charset=utf-8"},
    },
    "lines with gaps": lambda rows: {
        "content": "\r\n\n".join(map(json.dumps, rows)) + "\n",
        "headers": {"content-type": "application/x-ndjson"},
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_samples_come_in_every_way_once(app: App, way: str) -> None:
    assert app.http.post("/api/toy/samples", **WAYS[way](ROWS)).json() == {"accepted": 3, "duplicates": 0}
    more = [*ROWS, {"id": "r9", "input": 1}]
    assert app.http.post("/api/toy/samples", **WAYS[way](more)).json() == {"accepted": 1, "duplicates": 3}
    assert app.project.ledger.counts("toy").usable == 3


@pytest.mark.parametrize("way", WAYS)
def test_one_bad_row_refuses_all(app: App, way: str) -> None:
    said = app.http.post("/api/toy/samples", **WAYS[way]([*ROWS, {"id": "bad", "input": {"n": "x"}}]))
    assert (said.status_code, said.json()["error"]["field"]) == (400, "[3].n")
    assert app.project.ledger.counts("toy").usable == 0


def test_one_sample_is_an_object(app: App) -> None:
    assert app.post("/api/toy/samples", ROWS[0]).json() == {"accepted": 1, "duplicates": 0}
    said = app.post("/api/toy/samples", {"label": "yes"})
    assert (said.status_code, said.json()["error"]["field"]) == (400, "input")


def test_an_idempotency_key_is_the_id_of_a_single_sample(app: App) -> None:
    row = {"input": 1, "label": "yes"}
    key = {"Idempotency-Key": "k-1"}
    assert app.post("/api/toy/samples", row, headers=key).json() == {"accepted": 1, "duplicates": 0}
    assert app.post("/api/toy/samples", row, headers=key).json() == {"accepted": 0, "duplicates": 1}
    said = app.post("/api/toy/samples", [row, row], headers=key)
    assert (said.status_code, said.json()["error"]["field"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"input": "\xff"}', "application/json"),
        (b"{}\n{", "application/x-ndjson"),
    ],
)
def test_what_is_not_json_is_refused(app: App, body: bytes, kind: str) -> None:
    said = app.http.post("/api/toy/samples", content=body, headers={"content-type": kind})
    assert (said.status_code, said.json()["error"]["code"]) == (400, "invalid_input")


def test_nothing_is_nothing(app: App) -> None:
    assert app.post("/api/toy/samples", []).json() == {"accepted": 0, "duplicates": 0}


@pytest.mark.parametrize("path", ["/api/toy/samples", "/api/toy/predict", "/api/toy/feedback"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(start: Callable[..., App], path: str, chunked: bool) -> None:
    app = start(MEMORY + "[http]\nmax_body = 2000\n" + PLAIN)

    def parts() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    content: Any = parts() if chunked else b" " * 3000
    said = app.http.post(path, content=content)
    assert (said.status_code, said.json()["error"]["code"]) == (413, "too_large")


def test_when_too_much_waits_it_says_so(app: App) -> None:
    full = Intake(app.project.ledger, max_waiting=2)  # never started: nothing is ever written
    app.serving.receipts._intake = full
    said = app.post("/api/toy/samples", ROWS)
    assert (said.status_code, said.json()["error"]["code"]) == (503, "overloaded")
    assert said.headers["retry-after"]


def test_without_consent_nothing_is_stored(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN.replace("collect.consent = false", ""))
    said = app.post("/api/toy/samples", [{**ROWS[0], "consent": True}, ROWS[1]])
    assert (said.status_code, said.json()["error"]["code"]) == (403, "no_consent")
    assert said.json()["error"]["field"] == "[1].consent"
    assert app.project.ledger.counts("toy").usable == 0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=4))
def test_every_id_is_counted_once_whatever_is_sent_again(app: App, ids: list[list[int]]) -> None:
    """Property: accepted = ids never sent before, duplicates = all others, also within one call."""
    seen = {s.id for s in app.project.ledger.samples("toy")}
    for call in ids:
        said = app.post("/api/toy/samples", [{"id": str(i), "input": i, "label": 1} for i in call]).json()
        fresh = {str(i) for i in call} - seen
        assert said == {"accepted": len(fresh), "duplicates": len(call) - len(fresh)}
        seen |= fresh


def test_half_a_body_is_not_taken_for_a_whole_one(app: App) -> None:
    lines = b'{"id":"a","input":1,"label":1}\n{"id":"b","input":2,"label":1}\n'
    head = b"POST /api/toy/samples HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    address = ("127.0.0.1", app.http.base_url.port)
    with socket.create_connection(address) as caller:
        caller.sendall(head + b"Content-Length: 5000\r\n\r\n" + lines)
        time.sleep(0.1)
    requests = app.serving.desks["toy"].meter.requests
    wait(lambda: requests["samples", 400])
    assert app.project.ledger.counts("toy").usable == 0


def test_what_is_nested_too_deeply_is_refused(app: App) -> None:
    for path in ("predict", "samples", "feedback"):
        said = app.http.post(f"/api/toy/{path}", content=b"[" * 200_000)
        assert (said.status_code, said.json()["error"]["code"]) == (400, "invalid_input")


def test_predictions_that_cannot_be_written_down_are_answered_and_counted(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.learn("first")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(app.project.ledger, "append", full)
        assert app.post("/api/toy/predict", {"input": 1}).status_code == 200
        wait(lambda: app.serving.desks["toy"].meter.dropped == 1)
        assert app.post("/api/toy/samples", ROWS).status_code == 500
    assert app.post("/api/toy/samples", ROWS).json() == {"accepted": 3, "duplicates": 0}


@pytest.mark.parametrize("field", ["id", "subject"])
def test_nul_is_refused_before_it_spoils_a_transaction(app: App, field: str) -> None:
    for path, body in (("samples", {"input": 1, field: "a\0"}), ("predict", {"input": 1, field: "a\0"})):
        said = app.post(f"/api/toy/{path}", body)
        assert (said.status_code, said.json()["error"]["field"]) == (400, field)
    assert app.post("/api/toy/feedback", {"id": "a\0", "label": 1, "input": 1}).status_code == 400
