"""The forest behind LitServe; runs in a Python of its own: `lit.py MODEL PORT PROCESSES`."""

from __future__ import annotations

import sys
from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np
import onnxruntime as ort

FEATURES = ("frustumCoverage", "occlusionRatio", "meanVisibleDistance", "deviceFPS", "deviceCPULoad")
MODEL, PORT, PROCESSES = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class Forest(litserve.LitAPI):  # type: ignore[misc]
    """One row, one call; nothing is batched."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - asked for by name
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(f"{MODEL}/model.onnx", options)

    def decode_request(self, request: dict[str, float]) -> Any:
        return np.array([[request[f] for f in FEATURES]], dtype=np.float32)

    def predict(self, x: Any) -> Any:
        return self.session.run(["label", "probabilities"], {"x": x})

    def encode_response(self, output: Any) -> dict[str, Any]:
        labels, probabilities = output
        return {"success": True, "lod": int(labels[0]), "probabilities": probabilities[0].tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Forest(api_path="/predict"), accelerator="cpu", workers_per_device=PROCESSES)
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=PROCESSES,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
