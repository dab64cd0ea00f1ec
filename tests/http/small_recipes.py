"""Recipes with hardly anything inside, to see through."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evergreen.core.errors import InvalidInput
from evergreen.core.loop import Loop
from evergreen.core.recipe import Job, PluginOptions, Predictor, Recipe, Row, Scores
from evergreen.core.records import Json


class EchoOptions(PluginOptions):
    """What a model is to say."""

    mark: str = ""
    """Goes into every answer."""
    broken: bool = False
    """Train a model that cannot be loaded by a server."""
    fails: bool = False
    """Train a model that fails on inputs that say `"fail": true`."""


class EchoModel:
    """Says its mark and what it was asked."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def predict(self, inputs: Sequence[Json]) -> Sequence[Json]:
        if any(isinstance(one, dict) and one.get("fail") for one in inputs):
            raise RuntimeError("asked to fail")
        if any(isinstance(one, dict) and one.get("slow") for one in inputs):
            time.sleep(1)
        return [{"mark": self.mark, "asked": one} for one in inputs]

    def close(self) -> None:
        """Hold nothing."""


class Echo(Recipe):
    """Answers with what it was asked and the mark it was trained with; quick."""

    Options = EchoOptions
    quick = True

    def check(self, value: Json) -> Json:
        if isinstance(value, dict) and not isinstance(value.get("n", 0), int):
            raise InvalidInput("n is not a whole number", field="n")
        return value

    def train(self, job: Job) -> Mapping[str, Json]:
        (job.out / "mark.txt").write_text(self.options.mark)
        return {"n_train": sum(1 for _ in job.rows())}

    def load(self, artifact: Path) -> Predictor:
        return EchoModel((artifact / "mark.txt").read_text())

    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        return {"accuracy": [1.0] * len(rows)}


class SlowEcho(Echo):
    """The same, answered in a thread."""

    quick = False


class Parrot(Echo):
    """The same; every third answer is decided by the mark."""

    def decision(self, output: Json) -> Json:
        return output["mark"] if output["asked"]["n"] % 3 else 0


class Door:
    """Another system's way in."""

    Options = PluginOptions

    def __init__(self, options: PluginOptions, *, home: Path) -> None:
        self.hot: dict[tuple[str, str], Any] = {}

    def settings(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return raw

    def watch(self, loop: Loop) -> None:
        """See nothing."""

    def routes(self, serving: Any) -> list[Any]:
        import msgspec
        from starlette.responses import JSONResponse

        from evergreen.http.auth import Role
        from evergreen.http.errors import explain
        from evergreen.http.hot import Claim
        from evergreen.http.ways import Endpoint, Way

        async def models(_: Any) -> Any:
            return JSONResponse({"door": "routes", "loops": list(serving.project.loops)})

        async def predict(_: Any, body: bytes) -> tuple[int, bytes]:
            if body == b"raise":
                raise InvalidInput("as you wish")
            return 203, b'{"door":"hot","heard":"%s"}' % body

        def refuse(exc: Exception) -> tuple[int, bytes]:
            status, body, _ = explain(exc)
            return status, msgspec.json.encode({"door": "refused", **body})

        said = [Endpoint("POST", path, predict, Role.APP, "Decide.") for path in ("/api/toy/predict", "/decide")]
        self.hot = {(one.method, one.path): Claim(predict, refuse, one) for one in said}
        return [Way(Endpoint("GET", "/api/toy/models", models, Role.APP, "Its models."))]
