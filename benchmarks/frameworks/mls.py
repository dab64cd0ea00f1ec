"""The forest behind MLServer; runs in a Python of its own: `mlserver start FOLDER`, whose settings name this class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]


class Forest(MLModel):  # type: ignore[misc]
    """One row, one call; nothing is batched."""

    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(Path(self.settings.parameters.uri, "model.onnx"), options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        labels, probabilities = self.session.run(["label", "probabilities"], {"x": x})
        outputs = [NumpyCodec.encode_output("lod", labels), NumpyCodec.encode_output("probabilities", probabilities)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
