"""Good files, damaged at random: refused with a reason, or taken as what they then are; never anything else."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import GOOD

from evergreen.core.errors import InvalidInput
from evergreen.core.plugins import load
from evergreen.job.cell import Limits, examine

SEEDS = {name: make().SerializeToString() for name, make in GOOD.items()}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Flip bits, cut pieces out, put pieces in, repeat pieces, join two files."""
    data = bytearray(SEEDS[draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(("flip", "set", "cut", "put", "repeat", "join")))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set" and data:
            data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "put":
            data[at:at] = draw(st.binary(min_size=1, max_size=12))
        elif how == "repeat":
            piece = data[at : at + draw(st.integers(1, 60))]
            data[at:at] = piece * draw(st.integers(1, 30))
        else:
            data += SEEDS[draw(st.sampled_from(sorted(SEEDS)))]
    return bytes(data)


def read(data: bytes) -> None:
    """Read in this process: whatever is raised must be a reason."""
    onnx = load("formats", "onnx")()
    with TemporaryDirectory() as folder:
        (Path(folder) / "m.onnx").write_bytes(data)
        try:
            onnx.read(Path(folder) / "m.onnx", Path(folder))
        except InvalidInput as e:
            assert str(e)  # noqa: PT017 - most are refused, some are not


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_a_damaged_file_is_read_or_refused(data: bytes) -> None:
    read(data)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_thousands_of_damaged_files_are_read_or_refused(data: bytes) -> None:
    read(data)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_hundreds_of_damaged_files_go_through_the_cell(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "m.onnx"
        file.write_bytes(data)
        try:
            found = examine(
                file,
                format="onnx",
                recipe={"use": "takers:Taker"},
                rows=None,
                out=Path(folder) / "out",
                limits=Limits(seconds=20),
            )
        except InvalidInput as e:
            assert str(e)  # noqa: PT017
        else:
            assert len(found.interface.labels) >= 2
