"""A recipe and a store from outside the package: found by name, held to the same contracts, walked through the loop."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from acceptance_kit import Server, command, serving, wait

from evergreen.core import plugins
from evergreen.core.config import Use

CODE = Path(__file__).parent / "stranger"
METADATA = "Metadata-Version: 2.1\nName: somebodys-evergreen-parts\nVersion: 1.0\n"
ENTRY_POINTS = """
[evergreen.recipes]
nearest-centroid = nearest_centroid:NearestCentroid

[evergreen.stores]
attic = attic:Attic
"""
CONTRACTS = """
import random
from pathlib import Path

import pytest

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.testing.recipe import RecipeContract
from evergreen.testing.store import StoreContract


class TestNearestCentroid(RecipeContract):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls):
        return plugins.make("recipes", Use(use="nearest-centroid", dimensions=3))

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls):
        near = random.Random(1).gauss
        return [
            {"input": [near(i % 2, 0.2), near(0, 1), near(0, 1)], "label": "even" if i % 2 == 0 else "odd"}
            for i in range(100)
        ]

    @pytest.fixture(scope="class")
    @classmethod
    def bad_rows(cls):
        return [({"label": "odd"}, "input"), ({"input": [1, 2], "label": "odd"}, "input")]


class TestAttic(StoreContract):
    @pytest.fixture
    def store(self, tmp_path_factory):
        home = tmp_path_factory.mktemp("home")
        return plugins.make("stores", Use(use="attic"), home=home, state=home / "state")
"""
PROJECT = """
[store]
use = "attic"
file = "everything.db"

[loops.shapes]
recipe = { use = "nearest-centroid" }
runner = { use = "process" }
collect.consent = false
trigger = { auto = false, min_size = 40 }
gate = { min_rows = 10, margin = 0.05 }
rollout = { steps = [0.0, 0.5, 1.0], hold = "0s" }
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `pip install --target` would leave it: the modules and what their distribution says of them."""
    site = tmp_path_factory.mktemp("site")
    for module in ("nearest_centroid.py", "attic.py"):
        shutil.copy(CODE / module, site)
    info = site / "somebodys_evergreen_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


def beside(site: Path) -> str:
    return os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))


def test_they_are_found_by_name_like_ours(site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "nearest-centroid" not in plugins.names("recipes")
    monkeypatch.syspath_prepend(site)
    assert {"nearest-centroid", "tabular"} <= set(plugins.names("recipes"))
    assert {"attic", "local"} <= set(plugins.names("stores"))
    store = plugins.make("stores", Use(use="attic"), home=tmp_path, state=tmp_path)
    assert Path(sys.modules[type(store).__module__].__file__ or "").parent == site


def test_they_pass_the_contract_suites(site: Path, tmp_path: Path) -> None:
    (tmp_path / "test_contracts.py").write_text(CONTRACTS)
    suite = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-q", "test_contracts.py"]
    done = subprocess.run(
        suite, cwd=tmp_path, env=os.environ | {"PYTHONPATH": beside(site)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(done.stdout.rstrip().rpartition("\n")[2].split()[0])
    assert passed > 40, done.stdout


def points(n: int, seed: int, *, swapped: bool = False) -> list[dict[str, Any]]:
    """Make labelled points around two centres; swapped, the centres have changed places."""
    chance, made = random.Random(seed), []
    for i in range(n):
        right = i % 2 == 0
        x = chance.gauss(3.0 if right != swapped else -3.0, 0.5)
        made.append({"id": f"{seed}-{i}", "input": [x, chance.gauss(0, 1)], "label": "right" if right else "left"})
    return made


def ask(server: Server) -> tuple[int, str]:
    """Ask where a point far to the right belongs; return the version that answered, and its answer."""
    said = server.post("/api/shapes/predict", {"input": [3.0, 0.0]})
    return said["model"]["version"], said["output"]["label"]


def test_they_walk_the_loop_from_sample_to_rollback(site: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "evergreen.toml").write_text(PROJECT)
    with serving(home, PYTHONPATH=beside(site)) as server:
        assert server.http.post("/api/shapes/predict", json={"input": [3.0, 0.0]}).json()["error"]["code"] == "no_model"
        assert server.post("/api/shapes/samples", points(100, 1)) == {"accepted": 100, "duplicates": 0}
        assert server.post("/api/shapes/samples", points(100, 1)) == {"accepted": 0, "duplicates": 100}
        refused = server.http.post("/api/shapes/samples", json={"input": [1.0], "label": "left"})
        assert (refused.status_code, refused.json()["error"]["field"]) == (400, "input")

        assert server.train("shapes") == 1
        wait(lambda: server.get("/health")["loops"]["shapes"]["version"] == 1, "v1 answers")
        assert ask(server) == (1, "right")

        server.post("/api/shapes/samples", points(400, 2, swapped=True))  # the world has turned round
        assert server.train("shapes") == 2
        wait(lambda: server.get("/health")["loops"]["shapes"]["version"] == 2, "v2 is rolled out")
        assert ask(server) == (2, "left")

        newest, first = server.get("/api/shapes/models")["models"]
        assert newest["verdict"]["outcome"] == "promote"
        assert newest["scores"]["accuracy"] > newest["rival_scores"]["accuracy"]
        assert first["state"] == "retired"

        assert server.post("/api/shapes/rollback", {"why": "it was a prank"})["version"] == 1
        assert ask(server) == (1, "right")
        download = server.http.get("/api/shapes/models/2/download")
        assert b"means.json" in download.content

    with closing(sqlite3.connect(home / "everything.db")) as db:
        keys = [key for (key,) in db.execute("select key from folder order by key")]
    assert [key.partition("/")[0] for key in keys].count("models") == 2
    assert {key.partition("/")[0] for key in keys} == {"datasets", "evaluations", "models"}
    assert not (home / ".evergreen" / "store").exists()


def test_without_their_package_the_error_names_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "evergreen.toml").write_text(PROJECT)
    said = command(tmp_path, "status")
    assert said.code == 2
    assert 'no store "attic"; there are: dropbox, gdrive, local, s3' in said.err
    assert "install the package that brings it" in said.err
