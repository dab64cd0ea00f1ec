"""Every hostile file is refused, with a reason, and leaves nothing behind."""

from __future__ import annotations

import os
import re
from pathlib import Path

import corpus_onnx
import corpus_onnx_graphs  # noqa: F401 - fills the registry
import pytest
from corpus import CORPUS, Case
from models import GOOD, linear

from evergreen.core.errors import InvalidInput
from evergreen.job.cell import Examined, Limits, examine

RECIPE = {"use": "takers:Taker"}
LIMITS = Limits(file_mb=128, seconds=20, memory_mb=256, ms_per_answer=50)


def examined(file: Path, out: Path, format: str = "onnx", limits: Limits = LIMITS) -> Examined:
    return examine(file, format=format, recipe=RECIPE, rows=None, out=out, limits=limits)


@pytest.mark.parametrize("case", [c for c in CORPUS.values() if c.suffix == ".onnx"], ids=lambda c: c.name)
def test_a_hostile_file_is_refused_with_a_reason(case: Case, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    file = case.file(tmp_path / "from")
    with pytest.raises(InvalidInput) as refused:
        examined(file, tmp_path / "out")
    assert re.search(case.says, str(refused.value)), str(refused.value)
    assert len(str(refused.value)) < 600
    assert not list(tmp_path.glob("cell-*"))
    assert not Path("/tmp/evergreen-was-harmed").exists()


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_is_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(GOOD[name]().SerializeToString())
    found = examined(tmp_path / "m.onnx", tmp_path / "out")
    assert found.interface.labels == ["off", "on", "play"]
    assert found.interface.kind == {"texts": "text", "counts": "counts"}.get(name, "features")
    assert sorted(os.listdir(tmp_path / "out")) == ["interface.json", "model.onnx"]
    assert found.details["memory_mb"] < 256
    examined(tmp_path / "m.onnx", tmp_path / "again")
    assert (tmp_path / "again" / "model.onnx").read_bytes() == (tmp_path / "out" / "model.onnx").read_bytes()


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    for i, data in enumerate(corpus_onnx.every_kth_byte(linear().SerializeToString(), 12)):
        file = tmp_path / f"{i}.onnx"
        file.write_bytes(data)
        with pytest.raises(InvalidInput):
            examined(file, tmp_path / f"out-{i}")
