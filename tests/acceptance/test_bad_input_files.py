"""Bad rows, bad settings and bad commands: each is told what is wrong and where, and nothing else has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from acceptance_kit import holdings

from evergreen.cli import main
from evergreen.templates.parima.viewers import COLUMNS, Viewers

pytestmark = pytest.mark.usefixtures("plain")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def here(parima: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained project, in whose folder we are."""
    monkeypatch.chdir(parima)
    return parima


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it printed on either stream."""
    capsys.readouterr()
    code = main(list(words))
    return code, *capsys.readouterr()


# Rows of a CSV log: what is wrong with each -> what quarantine says

GOOD_ROW = next(iter(Viewers(seed=21).decisions(1)))
ROWS: list[tuple[dict[str, Any], str]] = [
    ({"deviceFPS": ""}, "deviceFPS is missing"),
    ({"deviceFPS": "fast"}, "deviceFPS is 'fast', not a number"),
    ({"deviceFPS": "nan"}, "deviceFPS is nan, not a finite number"),
    ({"deviceFPS": "inf"}, "deviceFPS is inf, not a finite number"),
    ({"deviceFPS": "-3"}, "deviceFPS is -3.0, outside the range"),
    ({"frustumCoverage": "1.5"}, "frustumCoverage is 1.5, outside the range from 0 to 1"),
    ({"decisionLOD": ""}, "decisionLOD"),
    ({"decisionLOD": "9"}, "decisionLOD"),
    ({"decisionLOD": "2.5"}, "decisionLOD"),
    ({"decisionLOD": "two"}, "decisionLOD"),
    ({"decisionLOD": "3,extra"}, "cells"),
    ({"decisionLOD": "3\0"}, "NUL"),
]


def line(**changes: Any) -> str:
    return ",".join(str({**GOOD_ROW, **changes}[name]) for name in COLUMNS) + "\n"


def test_bad_rows_are_set_aside_with_the_reason_and_good_ones_count(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = holdings(here)
    for n, (changes, reason) in enumerate(ROWS):
        file = here / f"rows-{n}.csv"
        file.write_text(",".join(COLUMNS) + "\n" + line(memoryMB=n) + line(**changes) + line(latencyMs=n))
        code, out, err = said(capsys, "collect", "parima", str(file), "--json")
        (result,) = json.loads(out)
        assert (code, result["new"], result["rejected"]) == (0, 2, 1), (changes, result, err)
        (reject,) = result["rejects"]
        assert reject["where"] == "line 3"
        assert reason in reject["reason"], (changes, reject)
        file.unlink()
    after = holdings(here)
    n = len(ROWS)
    assert after["parima counts"].quarantined == before["parima counts"].quarantined + n
    assert after["parima counts"].usable == before["parima counts"].usable + 2 * n
    assert (after["parima records"], after["files"]) == (before["parima records"], before["files"])


def test_files_that_hold_no_rows_change_nothing_but_quarantine(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = holdings(here)
    for name, content in {
        "empty.csv": b"",
        "noise.csv": bytes(range(256)) * 20,
        "semicolons.csv": "".join(line(memoryMB=n) for n in range(3)).replace(",", ";").encode(),
        "headless.csv": "".join(line(memoryMB=n) for n in range(3)).encode(),
        "other.csv": b"name,age\nann,41\n",
        "broken.jsonl": b'{"input": \n[1]\n"x"\n',
    }.items():
        file = here / name
        file.write_bytes(content)
        code, out, _ = said(capsys, "collect", "parima", str(file), "--json")
        (result,) = json.loads(out)
        assert (code, result["new"]) == (0, 0), name
        assert result["rejected"] or not content, name
        assert all(reject["reason"] for reject in result["rejects"])
        file.unlink()
    after = holdings(here)
    for held in ("parima samples", "parima records", "files"):
        assert after[held] == before[held]


# Settings: text in the file -> text instead; the setting that is named; what else is said

SETTINGS: list[tuple[str, str, str, str]] = [
    ("[http]", "[htpp]", "htpp", "there is no such key"),
    ("[http]", '[http]\ncolour = "red"', "http.colour", "there is no such key"),
    ("[http]", "[http]\nmax_body = 1", "http.max_body", "1024"),
    ("port = 5001", 'port = "five"', "http.port", "'five'"),
    ("port = 5001", "port = 70000", "http.port", "70000"),
    ("[http]", '[http]\nanonymous = "king"', "http.anonymous", "'none', 'app'"),
    ('hold = "5m"', 'hold = "soon"', "loops.parima.rollout.hold", "'soon'"),
    ('hold = "5m"', "hold = []", "loops.parima.rollout.hold", "[]"),
    ("[0.0, 0.1, 0.5, 1.0]", "[0.5, 0.1, 1.0]", "loops.parima.rollout.steps", "steps must rise"),
    ("[0.0, 0.1, 0.5, 1.0]", "[0.1, 0.5]", "loops.parima.rollout.steps", "end with 1.0"),
    ("[0.0, 0.1, 0.5, 1.0]", "[0.0, 7.0]", "loops.parima.rollout.steps.1", "less than or equal to 1"),
    ("max_error_rate = 0.02", 'max_error_rate = "low"', "loops.parima.rollout.max_error_rate", "'low'"),
    ('split = "time"', 'split = "dice"', "loops.parima.dataset.split", "'auto', 'time' or 'hash'"),
    ("margin = 0.02", "margin = -1", "loops.parima.gate.margin", "greater than or equal to 0"),
    ("consent = false", 'consent = "perhaps"', "loops.parima.collect.consent", "'perhaps'"),
    ("[loops.parima.gate]", "[loops.parima.gait]", "loops.parima.gait", "there is no such key"),
    ("[loops.parima.gate]", "[loops.Parima.gate]", "", "Parima"),
    ('use = "tabular"', 'use = "oracle"', "use", 'no recipe "oracle"; there are: intent, tabular'),
    ('use = "tabular"', 'use = "nowhere:Oracle"', "use", "cannot be imported"),
    ('use = "tabular"', "", "loops.parima.recipe.use", "is missing"),
    ('target = "decisionLOD"', "target = 7", "target", "(it is 7)"),
    ('target = "decisionLOD"', 'target = "decisionLOD"\ncolour = 1', "colour", "there is no such key"),
    ('use = "parima"', 'use = "seed"', "use", 'no door "seed"; there are: backdoor, parima'),
    ("[http]", '[ledger]\nuse = "papyrus"\n[http]', "use", 'no ledger "papyrus"; there are: memory, sql'),
    ("[http]", '[store]\nuse = "shed"\n[http]', "use", 'no store "shed"; there are: dropbox, gdrive, local, s3'),
    ("[http]", '[store]\nuse = "local"\nwhere = "x"\n[http]', "where", "there is no such key"),
    ("[loops.parima.gate]", '[loops.parima.runner]\nuse = "horse"\n[loops.parima.gate]', "use", 'no runner "horse"'),
    ("[http]", "[http", "", "line"),
]


@pytest.mark.parametrize(("old", "new", "field", "words"), SETTINGS, ids=[new or old for old, new, _, _ in SETTINGS])
def test_a_wrong_setting_is_named_and_stops_everything(
    here: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, field: str, words: str
) -> None:
    before = holdings(here)
    toml = here / "evergreen.toml"
    right = toml.read_text()
    assert old in right
    toml.write_text(right.replace(old, new, 1))
    for command in (("status",), ("train", "--force"), ("up", "--port", "0")):
        code, out, err = said(capsys, *command)
        assert (code, out) == (2, ""), err
        assert err.startswith("error: ")
        assert words in err
        assert not field or f"where: {field}" in err
    toml.write_text(right)
    assert holdings(here) == before


CONFIG_JSON = [
    ('{"parima": {"training": {"autoTrain": "yes"}}}', "parima.training.autoTrain"),
    ('{"parima": {"training": {"minSamplesForTraining": -1}}}', "parima.training.minSamplesForTraining"),
    ('{"parima": {"training": {"modelType": "crystal_ball"}}}', "parima.training.modelType"),
    ('{"parima": {"training": {"colour": "red"}}}', "parima.training.colour"),
    ('{"parima": 7}', "parima"),
    ("{", "line 1"),
]


@pytest.mark.parametrize(("text", "words"), CONFIG_JSON)
def test_so_in_the_config_json_of_parima(here: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    before = holdings(here)
    right = (here / "config.json").read_text()
    (here / "config.json").write_text(text)
    code, out, err = said(capsys, "status")
    assert (code, out) == (2, "")
    assert words in err
    (here / "config.json").write_text(right)
    assert holdings(here) == before


# Commands: words -> exit code, what is said

COMMANDS: list[tuple[list[str], int, list[str]]] = [
    (["statuss"], 2, ["No such command", "statuss", "try:"]),
    (["status", "--colour"], 2, ["No such option", "--colour", "try:"]),
    (["status", "nobody"], 1, ['no loop "nobody"', "where: loop", "There are: parima"]),
    (["models", "nobody"], 1, ['no loop "nobody"', "There are: parima"]),
    (["train", "nobody"], 1, ['no loop "nobody"', "There are: parima"]),
    (["promote", "nobody", "1", "--reason", "x"], 2, ["one word too many", "where: VERSION", "try:"]),
    (["promote", "nobody", "--reason", "x"], 2, ["'nobody' is not a version", "where: VERSION", "try:"]),
    (["promote", "99", "--reason", "x"], 1, ["no model v99"]),
    (["promote", "1"], 2, ["--reason", "try:"]),
    (["history", "--limit", "0"], 2, ["--limit"]),
    (["cancel"], 1, ["no training of parima"]),
    (["train", "--set", "trees"], 2, ["KEY=VALUE", "where: --set"]),
    (["train", "--set", "trees=many"], 1, ["trees", "'many'"]),
    (["train", "--set", "colour=red"], 1, ["there is no such key", "where: colour"]),
    (["train", "--file", "config.json"], 1, ["outside the folders", "where: file"]),
    (["train", "--file", "data/none.csv"], 1, ["there is no file", "where: file"]),
    (["collect", "nowhere.csv"], 2, ["no file nowhere.csv", "where: FILE"]),
    (["collect", "evergreen.toml"], 2, ["none of: .csv", "where: file"]),
    (["evaluate", "--model", "99"], 1, ["no model v99", "where: --model"]),
    (["evaluate", "--data", "none.csv"], 2, ["no file none.csv", "where: --data"]),
    (["dataset", "export", "--format", "coco"], 2, ["There are: csv, jsonl"]),
    (["keys", "create", "x", "--role", "king"], 1, ['no role "king"', "where: role"]),
    (["keys", "revoke", "nobody"], 1, ["no key nobody", "where: id"]),
    (
        ["init", "--template", "parrot", "new"],
        1,
        ['no template "parrot"', "where: --template", "There are: backdoor, parima"],
    ),
    (["init", "--template", "parima"], 1, ["holds already", "try:"]),
    (["status", "--config", "other.toml"], 2, ["no other.toml", "evergreen init"]),
    (["up", "--port", "70000"], 2, ["--port", "try:"]),
    (["up", "--host", "0.0.0.0", "--port", "0"], 2, ["key"]),
]


@pytest.mark.parametrize(("words", "code", "told"), COMMANDS, ids=[" ".join(words) for words, _, _ in COMMANDS])
def test_a_wrong_command_says_so_and_does_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: list[str]
) -> None:
    before = holdings(here)
    ended, out, err = said(capsys, *words)
    assert (ended, out) == (code, ""), err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for part in told:
        assert part in err
    assert holdings(here) == before
