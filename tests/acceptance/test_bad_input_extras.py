"""A package that is not installed: whoever needs it says which, and the command that brings it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from acceptance_kit import Said, command, holdings, serving, wait

#: Runs first in every Python that finds it, and lets no package be found that is named in ABSENT.
SITE = """
import os
from importlib.machinery import PathFinder

find = PathFinder.find_spec
absent = os.environ["ABSENT"].split()
PathFinder.find_spec = lambda name, *more: None if name.partition(".")[0] in absent else find(name, *more)
"""
FEATURES = {
    "frustumCoverage": 0.5, "occlusionRatio": 0.1, "meanVisibleDistance": 12.5, "deviceFPS": 58, "deviceCPULoad": 0.3
}  # fmt: skip


@pytest.fixture
def lacking(tmp_path: Path) -> dict[str, str]:
    """The environment of a process for which packages can be made absent with ABSENT."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))}


def told(said: Said, package: str, extra: str) -> None:
    assert (said.code, said.out) == (2, ""), said.err
    assert said.err.startswith("error: ")
    assert f"needs a package that is not installed: {package}\n" in said.err
    assert f"try:   pip install 'evergreen-ml[{extra}]'\n" in said.err


@pytest.mark.parametrize(
    ("absent", "words", "extra"),
    [
        ("uvicorn", ["up", "--port", "0"], "serve"),
        ("starlette", ["up", "--port", "0"], "serve"),
        ("sqlalchemy", ["status"], "serve"),
        ("sqlalchemy", ["up", "--port", "0"], "serve"),
    ],
)
def test_a_command_that_needs_it_ends(
    parima: Path, lacking: dict[str, str], absent: str, words: list[str], extra: str
) -> None:
    before = holdings(parima)
    told(command(parima, *words, **lacking, ABSENT=absent), absent, extra)
    assert holdings(parima) == before


@pytest.mark.parametrize("absent", ["sklearn", "onnxruntime"])
def test_a_training_that_needs_it_fails_for_its_configuration(
    parima: Path, lacking: dict[str, str], absent: str
) -> None:
    before = holdings(parima)
    said = command(parima, "train", "--force", "--json", **lacking, ABSENT=absent)
    assert said.code == 1
    run = json.loads(said.out)["run"]
    assert run["state"] == "failed"
    assert f"needs a package that is not installed: {absent}" in run["error"]
    assert "pip install 'evergreen-ml[tabular]'" in run["error"]
    after = holdings(parima)
    (failed,) = (r for r in after["parima records"] if r not in before["parima records"] and hasattr(r, "failure"))
    assert failed.failure == "configuration"
    assert failed.attempt == 1  # trying again would not help
    models = [r for r in before["parima records"] if hasattr(r, "version") and hasattr(r, "share")]
    assert models
    assert all(m in after["parima records"] for m in models)


def test_a_server_trains_in_vain_and_serves_on(parima: Path, lacking: dict[str, str]) -> None:
    with serving(parima, **lacking, ABSENT="sklearn skl2onnx") as server:
        server.post("/api/parima/train", {"force": True})
        wait(lambda: any(e["to"] == "failed" for e in server.get("/api/parima/history")["events"]), "the run fails")
        (why,) = (e["because"] for e in server.get("/api/parima/history")["events"] if e["to"] == "failed")
        assert "evergreen-ml[tabular]" in why
        assert server.post("/api/parima/predict", FEATURES)["success"] is True


def test_doctor_names_what_is_lacking_and_the_remedy(parima: Path, lacking: dict[str, str]) -> None:
    said = command(parima, "doctor", **lacking, ABSENT="sklearn")
    assert "sklearn" in said.out
    assert "pip install 'evergreen-ml[tabular]'" in said.out


def test_core_commands_do_without_what_only_training_needs(parima: Path, lacking: dict[str, str]) -> None:
    for words in (["status"], ["models"], ["history"], ["rollback", "--reason", "x"]):
        said = command(parima, *words, **lacking, ABSENT="sklearn skl2onnx onnx matplotlib")
        assert "not installed" not in said.err
        assert "Traceback" not in said.err
