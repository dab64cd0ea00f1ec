"""Begin a project, look for what is wrong with it, and see errors as a person sees them."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from cli_kit import Run, lay_down

from evergreen.core import config


def test_init_lays_a_project_down_that_is_in_order(run: Run, tmp_path: Path) -> None:
    said = run("init", tmp_path / "new")
    assert said.code == 0
    assert "evergreen up" in said.out
    config.parse(tomllib.loads((tmp_path / "new" / "evergreen.toml").read_text()))


def test_init_never_writes_over_anything_unless_forced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "evergreen.toml").write_text("mine")
    said = run("init", tmp_path)
    assert said.code == 1
    assert said.err.startswith(f"error: {tmp_path} holds already: evergreen.toml\n")
    assert (tmp_path / "evergreen.toml").read_text() == "mine"
    assert run("init", tmp_path, "--force").code == 0


TEMPLATES = [t.name for t in (files("evergreen") / "templates").iterdir() if (t / "files").is_dir()]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_listed_and_laid_down_as_it_is(run: Run, tmp_path: Path, name: str) -> None:
    assert name in run("init", "--list").out
    assert run("init", "--template", name, tmp_path).code == 0
    there = Path(str(files("evergreen") / "templates" / name / "files"))
    want = {
        Path(*(part.replace("dot_", ".") for part in p.relative_to(there).parts)): p.read_bytes()
        for p in there.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert want == {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_an_unknown_template_is_told_from_the_known(run: Run, tmp_path: Path) -> None:
    said = run("init", "--template", "nonesuch", tmp_path)
    assert said.code == 1
    assert "where: --template" in said.err
    assert "There are: " in said.err


def test_doctor_finds_a_sound_project_sound(run: Run, home: Path) -> None:
    said = run("doctor", "--json")
    found = {c["check"]: c["state"] for c in said.json["checks"]}
    assert said.code == 0, said.out
    assert said.json["ok"]
    assert {"python", "configuration", "ledger", "store", "disk", "clock", "server"} <= set(found)


def test_doctor_says_what_is_wrong_and_what_to_do(run: Run, home: Path) -> None:
    (home / "evergreen.toml").write_text("tick = 'often'\nloop = 1\n")
    said = run("doctor")
    assert said.code == 1
    assert "fail  configuration" in said.out
    assert "tick" in said.out
    assert "there is no such key" in said.out


def test_doctor_reads_the_golden_cases(run: Run, home: Path) -> None:
    settings = home / "evergreen.toml"
    settings.write_text(settings.read_text().replace("gate = {", 'gate = { golden = "golden.jsonl",'))
    said = run("doctor")
    assert said.code == 1
    assert "fail  golden cases   toy: the golden cases golden.jsonl cannot be read" in said.out
    (home / "golden.jsonl").write_text('{"input": {"n": 1}, "expected": "a", "must": true}\n')
    assert "ok    golden cases   toy: 1, of which 1 must be right" in run("doctor").out


def test_the_file_is_found_from_a_folder_below(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(home / "deep" / "er")
    assert list(run("status", "--json").json["loops"]) == ["toy"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["status", "nope"], 1, ['no loop "nope"', "where: loop", "There are: toy"]),
        (["statuss"], 2, ["statuss", "try:"]),
        (["history", "--limit", "many"], 2, ["--limit"]),
        (["promote", "1"], 2, ["--reason"]),
        (["promote", "one", "--reason", "x"], 2, ["'one' is not a version"]),
        (["promote", "7", "--reason", "x"], 1, ["no model v7"]),
        (["rollback"], 1, ["no former champion"]),
        (["cancel"], 1, ["no training of toy"]),
        (["evaluate"], 1, ["no champion"]),
        (["collect", "nowhere.csv"], 2, ["no file nowhere.csv", "where: FILE"]),
        (["collect", "evergreen.toml"], 2, ["none of: .csv"]),
        (["dataset", "export", "--format", "coco"], 2, ["There are: csv, jsonl"]),
        (["train", "--set", "fail"], 2, ["KEY=VALUE"]),
        (["train", "--set", "nonesuch=1"], 1, ["there is no such key"]),
        (["status", "--config", "other.toml"], 2, ["no other.toml", "evergreen init"]),
        (["keys", "revoke", "nope"], 1, ["no key nope"]),
    ],
)
def test_an_error_is_one_clear_block(run: Run, home: Path, argv: list[str], code: int, words: list[str]) -> None:
    said = run(*argv)
    assert said.code == code, said.err
    assert said.err.startswith("error: ")
    assert said.out == ""
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


def test_with_two_loops_one_must_be_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lay_down(tmp_path, "ann", "bob"))
    said = run("models")
    assert said.code == 2
    assert "There are: ann, bob" in said.err
    assert run("models", "bob").code == 0
    assert list(run("status", "--json").json["loops"]) == ["ann", "bob"]


def test_a_surprise_is_told_without_a_traceback(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evergreen.project

    def broken(path: object) -> None:
        raise RuntimeError("the roof is gone")

    monkeypatch.setattr(evergreen.project, "open", broken)
    said = run("status")
    assert said.code == 1
    assert said.err.startswith("error: RuntimeError: the roof is gone\n")
    assert "EVERGREEN_DEBUG=1" in said.err
    monkeypatch.setenv("EVERGREEN_DEBUG", "1")
    with pytest.raises(RuntimeError):
        run("status")
