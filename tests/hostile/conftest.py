"""Fixtures around files from strangers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `corpus`, `models`, `takers` and `evil`

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
