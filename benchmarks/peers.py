"""The same forest behind other people's servers: `uvicorn benchmarks.peers:NAME`, with MODEL naming a folder.

The folder holds `model.joblib` (scikit-learn) and `model.onnx` (the same model, exported).
"""

from __future__ import annotations

import json
import os
import sqlite3
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


def bare_onnx() -> Any:
    """A bare ASGI handler around the same onnxruntime call: nothing checked, nothing logged, nothing routed."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(FOLDER / "model.onnx"), options)
    name, outputs = session.get_inputs()[0].name, [o.name for o in session.get_outputs()]

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
            out = session.run(outputs, {name: np.array([[row[f] for f in FEATURES]], dtype=np.float32)})
            answer = json.dumps({"success": True, "decision": {"lod": int(out[0].argmax())}}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


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
