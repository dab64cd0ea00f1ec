"""Fixtures of the acceptance tests."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from acceptance_kit import LOG, command

from evergreen.templates.parima.viewers import Viewers, append


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PARIMA as its template lays it down, with a champion and a second model; not to be changed."""
    home = tmp_path_factory.mktemp("parima") / "trained"
    assert command(home.parent, "init", "--template", "parima", home.name).code == 0
    # Nothing trains unless it is asked to, and then quickly.
    (home / "config.json").write_text(
        json.dumps({"parima": {"training": {"autoTrain": False, "modelType": "logistic"}}})
    )
    hasty = home / "hasty.toml"
    hasty.write_text((home / "evergreen.toml").read_text() + '\n[loops.parima.runner]\nuse = "inline"\n')
    people = Viewers(seed=11)
    for _ in range(2):
        append(home / LOG, people.decisions(400))
        said = command(home, "train", "--config", hasty.name)
        assert said.code == 0, said.out + said.err
    hasty.unlink()
    return home


@pytest.fixture
def parima(trained: Path, tmp_path: Path) -> Path:
    """A copy of that project, to do with what one likes."""
    return shutil.copytree(trained, tmp_path / "parima")
