"""The messages of a CoreML specification as coremltools has them, without importing all of coremltools."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@contextmanager
def _bare() -> Any:
    """Stand in for coremltools' packages, whose imports take seconds and warn."""
    pytest.importorskip("onnxruntime")
    found = find_spec("coremltools")
    if found is None or found.origin is None:
        pytest.skip("coremltools is not installed", allow_module_level=True)
    folder, before = Path(found.origin).parent, set(sys.modules)
    if "coremltools" in before:
        yield
        return
    for name, place in (("coremltools", folder), ("coremltools.proto", folder / "proto")):
        stand_in = ModuleType(name)
        stand_in.__path__ = [str(place)]
        sys.modules[name] = stand_in
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "coremltools"]:
            del sys.modules[name]


with _bare():
    Model_pb2 = importlib.import_module("coremltools.proto.Model_pb2")
    FeatureTypes_pb2 = importlib.import_module("coremltools.proto.FeatureTypes_pb2")

Model = Model_pb2.Model
DOUBLE = FeatureTypes_pb2.ArrayFeatureType.DOUBLE


def described(
    spec: Any,
    inputs: dict[str, tuple[int, ...] | str],
    outputs: dict[str, tuple[int, ...] | str],
    classify: bool = False,
) -> Any:
    """Declare inputs and outputs: a shape for an array, or `double`, `int64`, `string`, `dictionary`."""
    for declared, given in ((spec.description.input, inputs), (spec.description.output, outputs)):
        for name, kind in given.items():
            each = declared.add(name=name)
            if kind == "dictionary":
                each.type.dictionaryType.stringKeyType.SetInParent()
            elif isinstance(kind, str):
                getattr(each.type, f"{kind}Type").SetInParent()
            else:
                each.type.multiArrayType.shape.extend(kind)
                each.type.multiArrayType.dataType = DOUBLE
    if classify:
        spec.description.output.add(name="label").type.stringType.SetInParent()
        spec.description.output.add(name="probability").type.dictionaryType.stringKeyType.SetInParent()
        spec.description.predictedFeatureName = "label"
        spec.description.predictedProbabilitiesName = "probability"
    return spec


def classifier(inputs: dict[str, tuple[int, ...] | str]) -> Any:
    """Begin a classifier with these inputs."""
    return described(Model(specificationVersion=4), inputs, {}, classify=True)


def pipeline(inputs: dict[str, tuple[int, ...] | str], *steps: Any) -> Any:
    """Put steps one after the other."""
    spec = classifier(inputs)
    for step in steps:
        spec.pipelineClassifier.pipeline.models.add().CopyFrom(step)
    return spec
