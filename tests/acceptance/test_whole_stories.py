"""What takes minutes: the demo as a newcomer sees it, and data with drift replayed in time order."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from acceptance_kit import PROGRAM, environment

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("EVERGREEN_TEST_DATA", ROOT.parent / "shared" / "data")) / "tabular" / "dev"

pytestmark = pytest.mark.slow


def test_the_demo_tells_its_story_and_fails_no_request(tmp_path: Path) -> None:
    words = [PROGRAM, "demo", "--leave", "--folder", str(tmp_path / "demo")]
    said = subprocess.run(words, capture_output=True, text=True, timeout=400, env=environment())
    assert said.returncode == 0, said.stdout + said.stderr
    for line in ("gate on v2: better", "gate on v3: worse", "v1 answers.", "v2 answers.", "failed: 0"):
        assert line in said.stdout


def replaying(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load the benchmark that replays."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("replay", ROOT / "benchmarks" / "replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "replay", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no {DATA}; EVERGREEN_TEST_DATA may say where it is")
@pytest.mark.parametrize("name", ["elec2_drift", "parima_devices", "parima_engine"])
def test_the_champion_beats_the_model_frozen_after_the_first_chunk(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tale = replaying(monkeypatch).replay(name, DATA)
    assert sum(tale.ours) > sum(tale.frozen)
    assert tale.verdicts.count("promote") >= 2
