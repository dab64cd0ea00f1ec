"""Every hostile CoreML file is refused, with a reason; those that are worst, and good ones, also in the cell."""

from __future__ import annotations

import re
from pathlib import Path

import corpus_coreml
import corpus_coreml_kinds
import corpus_coreml_network  # noqa: F401 - enters its files
import numpy as np
import pytest
from corpus import CORPUS, Case
from corpus_coreml import GOOD
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.backends.format.coreml import CoremlFormat
from evergreen.core.errors import InvalidInput
from evergreen.job.cell import Limits, examine

CASES = [each for each in CORPUS.values() if each.suffix == ".mlmodel"]
LIMITS = Limits(file_mb=64, seconds=30, memory_mb=256, ms_per_answer=50)
WORST = ("a_pipeline_within_a_pipeline_a_thousand_deep", "joined_with_itself_again_and_again", "giant_dimensions")


def read(file: Path, out: Path) -> object:
    return CoremlFormat().read(file, out)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_hostile_file_is_refused_with_a_reason(case: Case, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(case.file(tmp_path), tmp_path)
    assert re.search(case.says, str(refused.value)), str(refused.value)
    assert refused.value.field == "model"
    assert len(str(refused.value)) < 600
    assert not (tmp_path / "model.onnx").exists()
    assert not Path("/tmp/evergreen-was-harmed").exists()


@pytest.mark.parametrize("name", WORST)
def test_the_cell_says_the_same(name: str, tmp_path: Path) -> None:
    case = CORPUS[f"{name}.mlmodel"]
    (tmp_path / "from").mkdir()
    file = case.file(tmp_path / "from")
    with pytest.raises(InvalidInput, match=case.says):
        examine(file, format="coreml", recipe={"use": "takers:Taker"}, rows=None, out=tmp_path / "out", limits=LIMITS)
    assert not list(tmp_path.glob("cell-*"))


def test_a_small_file_that_unfolds_to_gigabytes_ends_with_its_cell(tmp_path: Path) -> None:
    node = b"\x0a\x00"  # a tree node without anything in it: two bytes here, a hundred once read
    ensemble = b"\x0a" + corpus_coreml.varint(len(node) * 8_000_000) + node * 8_000_000
    spec = corpus_coreml.trees()
    spec.ClearField("Type")
    data = (
        spec.SerializeToString() + corpus_coreml.varint(402 << 3 | 2) + corpus_coreml.varint(len(ensemble)) + ensemble
    )
    (tmp_path / "m.mlmodel").write_bytes(data)
    with pytest.raises(InvalidInput, match="memory"):
        examine(
            tmp_path / "m.mlmodel",
            format="coreml",
            recipe={"use": "takers:Taker"},
            rows=None,
            out=tmp_path / "out",
            limits=LIMITS,
        )


def test_a_tree_just_deep_enough_is_taken_in_the_cell(tmp_path: Path) -> None:
    (tmp_path / "m.mlmodel").write_bytes(corpus_coreml_kinds.chain(1000).SerializeToString())
    examine(
        tmp_path / "m.mlmodel",
        format="coreml",
        recipe={"use": "takers:Taker"},
        rows=None,
        out=tmp_path / "out",
        limits=LIMITS,
    )


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_is_taken_in_the_cell(name: str, tmp_path: Path) -> None:
    file = tmp_path / "phone.mlmodel"
    file.write_bytes(GOOD[name]().SerializeToString())
    found = examine(
        file, format="coreml", recipe={"use": "takers:Taker"}, rows=None, out=tmp_path / "out", limits=LIMITS
    )
    assert found.interface.kind == ("counts" if name == "words" else "features")
    assert found.details["memory_mb"] < 200
    read(file, tmp_path)
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


@pytest.mark.parametrize("name", GOOD)
def test_a_file_that_is_cut_off_is_refused(name: str, tmp_path: Path) -> None:
    data = GOOD[name]().SerializeToString()
    for i, cut in enumerate(corpus_coreml.every_kth_byte(data, 60)):
        file = tmp_path / f"{i}.mlmodel"
        file.write_bytes(cut)
        with pytest.raises(InvalidInput):
            read(file, tmp_path)


@given(st.sampled_from(list(GOOD)), st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=300)
def test_a_file_with_some_bytes_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, seed: int, many: int
) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(GOOD[name]().SerializeToString())
    for at in rng.integers(0, len(data), many).tolist():
        data[at] = int(rng.integers(256))
    folder = tmp_path_factory.mktemp("changed")
    (folder / "m.mlmodel").write_bytes(data)
    try:
        read(folder / "m.mlmodel", folder)
    except InvalidInput:
        return
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def test_metadata_without_end_is_bounded(tmp_path: Path) -> None:
    spec = corpus_coreml.linear()
    for i in range(5000):
        spec.description.metadata.userDefined[f"key {i} " + "x" * (i % 400)] = "y" * 1000
    spec.description.metadata.userDefined["\x00\x07"] = "bells"
    spec.description.metadata.author = "z" * 1_000_000
    (tmp_path / "m.mlmodel").write_bytes(spec.SerializeToString())
    about = CoremlFormat().read(tmp_path / "m.mlmodel", tmp_path).about
    assert len(about) <= 60
    assert all(len(key) <= 200 and len(value) <= 4000 for key, value in about.items())
    assert all(character.isprintable() for key in about for character in key)
