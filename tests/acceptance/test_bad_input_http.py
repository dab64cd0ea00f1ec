"""Every kind of bad request, to a running server: it gets the documented error, and nothing has changed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from acceptance_kit import Server, holdings, serving

import evergreen
from evergreen.http import auth

ERRORS = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
LIMIT = 64 * 1024
#: PARIMA's loop without PARIMA's own paths, and a loop that asks for consent and has no model.
CHANGES = """
[loops.parima.trigger]
auto = false

[loops.shy]
recipe = { use = "evergreen.testing.runner:Majority" }
trigger = { auto = false }
"""
GOOD = {
    "frustumCoverage": 0.5, "occlusionRatio": 0.1, "meanVisibleDistance": 12.5, "deviceFPS": 58, "deviceCPULoad": 0.3
}  # fmt: skip
ROW = {**GOOD, "decisionLOD": 2}
POINT = {"velocity": 1.5, "acceleration": -0.2, "angularVelocity": 0.1}
PREDICT, SAMPLES, FEEDBACK = "/api/parima/predict", "/api/parima/samples", "/api/parima/feedback"
TRAIN, PROMOTE = "/api/parima/train", "/api/parima/promote"
LINES = {"content-type": "application/x-ndjson"}


@dataclass(frozen=True)
class Bad:
    """One bad request and what it must be told; `json` is sent as such, `raw` as it is."""

    name: str
    path: str
    status: int
    code: str
    field: str | None = None
    hint: str | None = None  #: a part of it
    method: str = "POST"
    json: Any = None
    raw: bytes | None = None
    headers: dict[str, str] | None = None
    key: str | None = "admin"  #: whose key is sent


def without(name: str) -> dict[str, Any]:
    return {k: v for k, v in ROW.items() if k != name}


def bad(name: str, path: str, field: str | None = None, **more: Any) -> Bad:
    """A body that is refused with 400."""
    return Bad(name, path, 400, "invalid_input", field, **more)


def not_json(path: str) -> list[Bad]:
    return [
        bad(f"{path} cut short", path, raw=b'{"input": '),
        bad(f"{path} text", path, raw=b"deviceFPS=58"),
        bad(f"{path} NaN", path, raw=json.dumps({"input": {**GOOD, "deviceFPS": float("nan")}}).encode()),
        bad(f"{path} not UTF-8", path, raw=b'{"input": "\xff\xfe"}'),
        bad(f"{path} nested too deeply", path, raw=b"[" * 20_000),
        Bad(f"{path} too large", path, 413, "too_large", hint="max_body", raw=b" " * (LIMIT + 1)),
    ]


PREDICTIONS = [
    *not_json(PREDICT),
    bad("predict nothing", PREDICT, raw=b""),
    bad("predict a list", PREDICT, "input", json=[GOOD]),
    bad("predict text", PREDICT, "input", json={"input": "GOOD"}),
    bad("predict without a feature", PREDICT, "occlusionRatio", json={"input": without("occlusionRatio")}),
    bad("predict null", PREDICT, "deviceFPS", json={"input": {**GOOD, "deviceFPS": None}}),
    bad("predict a word for a number", PREDICT, "deviceFPS", json={"input": {**GOOD, "deviceFPS": "fast"}}),
    bad("predict true for a number", PREDICT, "deviceFPS", json={"input": {**GOOD, "deviceFPS": True}}),
    bad("predict out of range", PREDICT, "frustumCoverage", json={"input": {**GOOD, "frustumCoverage": 1.5}}),
    bad("predict flat, out of range", PREDICT, "frustumCoverage", json={**GOOD, "frustumCoverage": -1}),
    bad("predict a huge number", PREDICT, "deviceFPS", json={**GOOD, "deviceFPS": 10**400}),
    bad("predict a path of text", PREDICT, "viewportTrajectory", json={**GOOD, "viewportTrajectory": "far"}),
    bad("predict a long path", PREDICT, "viewportTrajectory", json={**GOOD, "viewportTrajectory": [POINT] * 11}),
    bad("predict half a point", PREDICT, "viewportTrajectory[1].velocity",
        json={**GOOD, "viewportTrajectory": [POINT, {"acceleration": 1, "angularVelocity": 1}]}),
    bad("predict none", PREDICT, "inputs", json={"inputs": []}),
    bad("predict too many", PREDICT, "inputs", json={"inputs": [0] * 1001}),
    bad("predict one bad of two", PREDICT, "[1].deviceFPS", json={"inputs": [GOOD, {**GOOD, "deviceFPS": "x"}]}),
    bad("predict for a number", PREDICT, "unit", json={"input": GOOD, "unit": 7}),
    bad("predict under a long id", PREDICT, "id", json={"input": GOOD, "id": "x" * 201}),
    Bad("predict without a model", "/api/shy/predict", 503, "no_model", hint="train", json={"input": 1}),
]  # fmt: skip
COLLECTIONS = [
    *not_json(SAMPLES),
    bad("a sample without its label", SAMPLES, "decisionLOD", json=without("decisionLOD")),
    bad("a sample without a feature", SAMPLES, "deviceFPS", json=without("deviceFPS")),
    bad("a sample of no class", SAMPLES, "decisionLOD", json={**ROW, "decisionLOD": 9}),
    bad("a sample that is a number", SAMPLES, json=7),
    bad("a bad row among good ones", SAMPLES, "[2].deviceFPS", json=[ROW, ROW, without("deviceFPS"), ROW]),
    bad("a row that is no object", SAMPLES, "[1]", json=[ROW, "row"]),
    bad("a line that is not UTF-8", SAMPLES, "[1]", headers=LINES, raw=json.dumps(ROW).encode() + b'\n{"a": "\xff"}\n'),
    bad("a line that is no JSON", SAMPLES, "[1]", headers=LINES, raw=json.dumps(ROW).encode() + b"\n{oops\n"),
    bad("a line with a bad value", SAMPLES, "[1].deviceFPS", headers=LINES,
        raw=(json.dumps(ROW) + "\n" + json.dumps({**ROW, "deviceFPS": -5}) + "\n").encode()),
    bad("an id that is a number", SAMPLES, "id", json={**ROW, "id": 7}),
    bad("a negative weight", SAMPLES, "weight", json={"input": GOOD, "label": 2, "weight": -1}),
    bad("one key for several", SAMPLES, "Idempotency-Key", json=[ROW, ROW], headers={"idempotency-key": "k"}),
    Bad("no consent", "/api/shy/samples", 403, "no_consent", "consent", "consent", json={"input": 1, "label": 1}),
    Bad("consent of a kind", "/api/shy/samples", 403, "no_consent", "consent", json={"input": 1, "consent": "yes"}),
    bad("feedback without a label", FEEDBACK, json={"id": "x"}),
    bad("feedback with more", FEEDBACK, json={"id": "x", "label": 1, "colour": "red"}),
    bad("feedback of no weight", FEEDBACK, "weight", json={"id": "x", "label": 1, "weight": "much"}),
    bad("feedback of no class", FEEDBACK, json={"id": "x", "label": 9, "input": GOOD}),
    Bad("feedback on nothing", FEEDBACK, 404, "not_found", "id", '"input"', json={"id": "x", "label": 1}),
]  # fmt: skip
ORDERS = [
    bad("train with more", TRAIN, json={"colour": "red"}),
    bad("train with a wrong type", TRAIN, "force", json={"force": "yes"}),
    bad("train what is no option", TRAIN, "colour", json={"overrides": {"colour": "red"}}),
    bad("train with an option of a wrong type", TRAIN, "trees", json={"overrides": {"trees": "many"}}),
    bad("train an unknown model", TRAIN, "model", json={"overrides": {"model": "crystal_ball"}}),
    bad("train on a file that is not there", TRAIN, "file", hint="data", json={"file": "data/none.csv"}),
    Bad("train on a file elsewhere", TRAIN, 403, "forbidden", "file", json={"file": "../../etc/passwd"}),
    bad("train for a long reason", TRAIN, "why", json={"why": "x" * 2001}),
    bad("promote nothing", PROMOTE, raw=b""),
    bad("promote a word", PROMOTE, "version", json={"version": "two"}),
    bad("promote zero", PROMOTE, "version", json={"version": 0}),
    Bad("promote what is not there", PROMOTE, 404, "not_found", json={"version": 99}),
    Bad("cancel nothing", "/api/parima/cancel", 404, "not_found", json={}),
    bad("roll back to", "/api/parima/rollback", json={"to": 1}),
    Bad("roll back nothing", "/api/shy/rollback", 409, "conflict", json={}),
    bad("history without end", "/api/parima/history?limit=501", "limit", method="GET"),
    bad("history before a word", "/api/parima/history?before=noon", "before", method="GET"),
    Bad("download what is not there", "/api/parima/models/99/download", 404, "not_found", "v", method="GET"),
    Bad("a path that is not there", "/api/parima/models/two/download", 404, "not_found", method="GET"),
]
OPERATIONS = [
    ("POST", "predict", "app"), ("POST", "samples", "app"), ("POST", "feedback", "app"), ("POST", "train", "operator"),
    ("POST", "cancel", "operator"), ("POST", "promote", "operator"), ("POST", "rollback", "operator"),
    ("GET", "training/status", "app"), ("GET", "models", "app"), ("GET", "models/1/download", "operator"),
    ("GET", "rollout", "app"), ("GET", "history", "app"),
]  # fmt: skip
UNKNOWN = [
    Bad(f"{path} of no loop", f"/api/nobody/{path}", 404, "not_found", "loop", "parima, shy", method)
    for method, path, _ in OPERATIONS
]
STRANGERS = [
    Bad(f"{path} {how}", f"/api/parima/{path}", 401, "unauthorized", None, "Bearer", method, key=None, headers=headers)
    for method, path, _ in OPERATIONS
    for how, headers in (
        ("without a key", None),
        ("with an unknown key", {"authorization": "Bearer egk_unknown"}),
        ("with another scheme", {"authorization": "Basic YTpi"}),
    )
]
LESSER = [
    Bad(f"{path} by {role}", f"/api/parima/{path}", 403, "forbidden", method=method, key=role)
    for method, path, least in OPERATIONS
    if least == "operator"
    for role in ("app", "reviewer")
]
TABLE = [*PREDICTIONS, *COLLECTIONS, *ORDERS, *UNKNOWN, *STRANGERS, *LESSER]


@dataclass(frozen=True)
class Guarded:
    """A server that knows four keys, and the project behind it."""

    home: Path
    server: Server
    keys: dict[str, str]


@pytest.fixture(scope="module")
def guarded(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    home = shutil.copytree(trained, tmp_path_factory.mktemp("guarded") / "home")
    toml = home / "evergreen.toml"
    text = re.sub(r"^doors = .*$", "", toml.read_text(), flags=re.MULTILINE)
    toml.write_text(text.replace("[http]", f"[http]\nmax_body = {LIMIT}") + CHANGES)
    project = evergreen.open(toml)
    with closing(project.ledger) as ledger:
        keys = {role: auth.create(ledger, role, role)[1] for role in ("app", "reviewer", "operator", "admin")}
    with serving(home) as server:
        good = {"authorization": f"Bearer {keys['app']}"}
        assert server.http.post(PREDICT, json={"input": GOOD}, headers=good).status_code == 200
        yield Guarded(home, server, keys)


@pytest.mark.parametrize("case", TABLE, ids=[case.name for case in TABLE])
def test_it_is_refused_and_changes_nothing(guarded: Guarded, case: Bad) -> None:
    before = holdings(guarded.home)
    headers = dict(case.headers or {})
    if case.key is not None:
        headers["x-api-key"] = guarded.keys[case.key]
    body: dict[str, Any] = {"json": case.json} if case.raw is None else {"content": case.raw}
    said = guarded.server.http.request(
        case.method, case.path, headers=headers, **({} if case.method == "GET" else body)
    )
    assert (said.status_code, list(said.json())) == (case.status, ["error"]), said.text
    error = said.json()["error"]
    assert set(error) == {"code", "message", "field", "hint"}
    assert error["code"] == case.code, said.text
    assert error["message"]
    if case.field is not None:
        assert error["field"] == case.field, said.text
    if case.hint is not None:
        assert case.hint in error["hint"], said.text
    assert holdings(guarded.home) == before


def test_what_it_is_told_is_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", ERRORS.read_text(), flags=re.MULTILINE)
    assert {(case.code, str(case.status)) for case in TABLE} <= set(rows)
