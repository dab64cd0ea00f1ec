"""The same forest behind other people's servers: `uvicorn benchmarks.peers:NAME`, with MODEL naming a folder.

The folder holds `model.joblib` (scikit-learn), `model.onnx` (a forest of the same kind, as Evergreen exports it), or both.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

FEATURES = ("frustumCoverage", "occlusionRatio", "meanVisibleDistance", "deviceFPS", "deviceCPULoad")
FOLDER = Path(os.environ.get("MODEL", "."))


def flask_joblib() -> Any:
    """The seeds' way: Flask, joblib, scikit-learn, one row at a time."""
    import joblib
    from flask import Flask, jsonify, request

    model = joblib.load(FOLDER / "model.joblib")
    app = Flask("seed")

    @app.post("/predict")
    def predict() -> Any:
        body = request.get_json()
        lod = model.predict([[body[f] for f in FEATURES]])[0]
        return jsonify({"success": True, "decision": {"lod": int(lod)}})

    @app.get("/health")
    def health() -> Any:
        return jsonify({"status": "healthy"})

    return app


def fastapi_sklearn() -> Any:
    """FastAPI and scikit-learn."""
    import joblib
    from fastapi import FastAPI
    from pydantic import create_model

    model = joblib.load(FOLDER / "model.joblib")
    app = FastAPI()
    body_model: Any = create_model("Body", **dict.fromkeys(FEATURES, (float, ...)))  # type: ignore[call-overload]

    def predict(body: Any) -> Any:
        lod = model.predict([[getattr(body, f) for f in FEATURES]])[0]
        return {"success": True, "decision": {"lod": int(lod)}}

    predict.__annotations__["body"] = body_model
    app.post("/predict")(predict)
    app.get("/health")(lambda: {"status": "healthy"})
    return app


def fastapi_onnx() -> Any:
    """FastAPI around the same onnxruntime call as Evergreen's."""
    from fastapi import FastAPI
    from pydantic import create_model

    decide = _decide()
    app = FastAPI()
    body_model: Any = create_model("Body", **dict.fromkeys(FEATURES, (float, ...)))  # type: ignore[call-overload]

    async def predict(body: Any) -> Any:
        return decide([getattr(body, f) for f in FEATURES])

    predict.__annotations__["body"] = body_model
    app.post("/predict")(predict)
    app.get("/health")(lambda: {"status": "healthy"})
    return app


def starlette_onnx() -> Any:
    """Starlette around the same onnxruntime call: nothing checked."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    decide = _decide()

    async def predict(request: Any) -> Any:
        row = await request.json()
        return JSONResponse(decide([row[f] for f in FEATURES]))

    async def health(_: Any) -> Any:
        return JSONResponse({"status": "healthy"})

    return Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/health", health)])


def bare_onnx() -> Any:
    """A bare ASGI handler around the same onnxruntime call: nothing checked, nothing logged, nothing routed."""
    decide = _decide()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await _lifespan(receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = b"{}"
        if body:
            row = json.loads(body)
            answer = json.dumps(decide([row[f] for f in FEATURES])).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def _decide() -> Callable[[list[float]], Any]:
    """Load the graph; return what answers one row: label and probabilities, as Evergreen does."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(FOLDER / "model.onnx"), options)

    def decide(row: list[float]) -> Any:
        labels, probabilities = session.run(["label", "probabilities"], {"x": np.array([row], dtype=np.float32)})
        return {"success": True, "lod": int(labels[0]), "probabilities": probabilities[0].tolist()}

    return decide


def naive_ingest() -> Any:
    """Starlette and SQLite: one durable commit for each request."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    lock = Lock()
    db = sqlite3.connect(FOLDER / "naive.db", isolation_level=None, check_same_thread=False)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("create table if not exists samples (seq integer primary key, id text unique, body blob)")

    def store(body: bytes) -> int:
        rows = json.loads(body)
        rows = rows if isinstance(rows, list) else [rows]
        with lock:
            db.execute("begin immediate")
            db.executemany(
                "insert into samples (id, body) values (?, ?)", [(os.urandom(8).hex(), json.dumps(r)) for r in rows]
            )
            db.execute("commit")
        return len(rows)

    async def samples(request: Any) -> Any:
        return JSONResponse({"accepted": await run_in_threadpool(store, await request.body())}, 202)

    return Starlette(routes=[Route("/samples", samples, methods=["POST"])])


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
