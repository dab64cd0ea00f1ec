"""The forest behind BentoML; runs in a Python of its own: `bentoml serve bento:Forest`, with MODEL naming a folder."""

from __future__ import annotations

import os
from typing import Any

import bentoml  # type: ignore[import-not-found]
import numpy as np
import onnxruntime as ort

FEATURES = ("frustumCoverage", "occlusionRatio", "meanVisibleDistance", "deviceFPS", "deviceCPULoad")


@bentoml.service(workers=int(os.environ.get("PROCESSES", "1")), logging={"access": {"enabled": False}})  # type: ignore[untyped-decorator]
class Forest:
    """One row, one call; nothing is batched."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(f"{os.environ['MODEL']}/model.onnx", options)

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(
        self,
        frustumCoverage: float,
        occlusionRatio: float,
        meanVisibleDistance: float,
        deviceFPS: float,
        deviceCPULoad: float,
    ) -> dict[str, Any]:
        row = [frustumCoverage, occlusionRatio, meanVisibleDistance, deviceFPS, deviceCPULoad]
        labels, probabilities = self.session.run(["label", "probabilities"], {"x": np.array([row], dtype=np.float32)})
        return {"success": True, "lod": int(labels[0]), "probabilities": probabilities[0].tolist()}
