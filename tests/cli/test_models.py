"""`evergreen models`: the list, one version, and why the gate decided so."""

from __future__ import annotations

from pathlib import Path

from cli_kit import Run, lay_down, rows


def test_why_the_gate_decided_is_told_as_markdown_and_written_with_pictures(tmp_path: Path, run: Run) -> None:
    folder = lay_down(tmp_path / "p", "a")
    config = ("--config", str(folder / "evergreen.toml"))
    run("collect", "a", str(rows(tmp_path / "rows.jsonl", 60)), *config)
    run("train", "a", *config)
    run("train", "a", "--force", *config)
    said = run("models", "a", "--version", "v2", "--report", *config)
    assert said.code == 0
    assert said.out.startswith("# a v2: let through\n\n**No worse by more than 0.5: accuracy 1.000")
    assert "1 earlier candidate was judged on mostly these rows." in said.out
    written = run("models", "a", "--version", "2", "--out", str(tmp_path / "report"), *config)
    assert (written.code, written.out) == (0, "")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "![Differences](differences.svg)" in text
    assert (tmp_path / "report" / "differences.svg").read_text().startswith("<svg ")
    assert [m["version"] for m in run("models", "a", "--version", "1", "--json", *config).json] == [1]
    assert run("models", "a", "--version", "9", "--report", *config).code != 0
