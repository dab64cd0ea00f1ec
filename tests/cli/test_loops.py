"""Samples in, a model out, promoted, rolled back, measured: all by commands."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_kit import Run, lay_down, rows

from evergreen import project
from evergreen.cli import following


def test_from_files_to_a_champion(run: Run, home: Path) -> None:
    said = run("collect", rows(home / "a.jsonl", 40), "--json")
    assert said.json == [{"file": str(home / "a.jsonl"), "new": 40, "known": 0, "rejected": 0, "rejects": []}]
    said = run("train", "--reason", "the first")
    assert said.code == 0, said.err
    assert said.out.startswith("v1: promote")
    status = run("status", "toy", "--json").json
    assert status["champion"]["version"] == 1
    assert status["samples"]["collected"] == 40
    assert status["run"] is None
    assert "v1" in run("status").out
    (model,) = run("models", "--json").json
    assert (model["state"], model["scores"]) == ("champion", {"accuracy": 1.0})
    assert any(e["because"] == "the first" for e in run("history", "--json").json)
    assert len(run("history", "--json", "--limit", "2").json) == 2
    assert "model v1" in run("history").out
    assert "toy: new champion v1, " in run("status").out


def test_a_row_counts_once_and_bad_ones_are_told(run: Run, home: Path) -> None:
    file = rows(home / "a.jsonl", 3)
    with file.open("a") as f:
        f.write('not json\n{"label": "without input"}\n')
    said = run("collect", "toy", file)
    assert said.code == 0
    assert "3 new, 0 known already, 2 rejected" in said.out
    assert "line 4: " in said.err
    assert "line 5: input is missing" in said.err
    assert "0 new" in run("collect", file).out
    assert run("status", "toy", "--json").json["samples"]["quarantined"] == 2


def test_rows_from_standard_input(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'{"input": 1, "label": "a"}\n{"input": 2, "label": "b"}\n\n{"id": "x", "input": 3, "label": "b"}\n{"inp\n'
    for new, known in ((3, 0), (0, 3)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        (said,) = run("collect", "-", "--json").json
        assert (said["new"], said["known"], said["rejected"]) == (new, known, 1)
        assert said["rejects"][0]["where"] == "line 5"


def test_too_few_samples_are_skipped_unless_forced(run: Run, home: Path) -> None:
    run("collect", rows(home / "a.jsonl", 5))
    said = run("train")
    assert said.code == 1
    assert "5 < 10" in said.err
    assert "--force" in said.err
    assert run("train", "--force").code == 0


def test_promote_and_roll_back(run: Run, home: Path) -> None:
    run("collect", rows(home / "a.jsonl", 40))
    run("train")
    run("collect", rows(home / "b.jsonl", 5, "no", start=100))
    said = run("train", "--json", "--set", "answer=no")
    assert said.code == 0, said.err
    assert (said.json["model"]["version"], said.json["model"]["state"]) == (2, "rejected")
    assert run("promote", "2", "--reason", "I know better").code == 1
    assert "v2 is champion" in run("promote", "toy", "v2", "--reason", "I know better", "--force").out
    assert "v1 answers" in run("rollback", "--reason", "I did not").out
    states = {m["version"]: m["state"] for m in run("models", "--json").json}
    assert states == {1: "champion", 2: "rolled_back"}


def test_evaluate_on_the_holdout_and_on_a_file(run: Run, home: Path) -> None:
    run("collect", rows(home / "a.jsonl", 60))
    run("train")
    assert run("evaluate", "--json").json["scores"] == {"accuracy": 1.0}
    said = run("evaluate", "--json", "--model", "1", "--data", rows(home / "b.jsonl", 8, "no")).json
    assert (said["rows"], said["scores"]) == (8, {"accuracy": 0.0})
    assert "accuracy" in run("evaluate").out


def test_datasets_are_listed_and_written_out(run: Run, home: Path) -> None:
    run("collect", rows(home / "a.jsonl", 50))
    run("train")
    (frozen,) = run("dataset", "list", "--json").json
    assert frozen["train"] + frozen["holdout"] == 50
    lines = [json.loads(line) for line in run("dataset", "export").out.splitlines()]
    assert len(lines) == 50
    table = list(csv.DictReader(io.StringIO(run("dataset", "export", "--format", "csv", "--side", "holdout").out)))
    assert len(table) == frozen["holdout"]
    assert {r["id"] for r in table} == {r["id"] for r in lines if r["side"] == "holdout"}
    assert set(table[0]) >= {"id", "side", "n", "label"}
    assert run("dataset", "export", "--out", home / "x.jsonl").code == 0
    assert run("dataset", "export", "--out", home / "x.jsonl").code == 2


def test_keys_are_shown_once_and_can_be_taken_back(run: Run, home: Path) -> None:
    made = run("keys", "create", "viewer", "--role", "app")
    key = made.out.strip()
    assert key
    listed = run("keys", "list", "--json")
    assert key not in listed.out
    ((id, name, role),) = [(k["id"], k["name"], k["role"]) for k in listed.json]
    assert (name, role) == ("viewer", "app")
    assert run("keys", "revoke", id).code == 0
    assert run("keys", "list", "--json").json == []
    assert run("keys", "create", "x", "--role", "king").code == 1


def test_a_training_that_was_asked_for_waits_for_a_server_or_for_train(run: Run, home: Path) -> None:
    run("collect", rows(home / "a.jsonl", 20))
    asked = run("trigger", "--json").json
    assert (asked["run"]["state"], asked["server"]) == ("requested", False)
    again = run("trigger")
    assert again.code == 1
    assert "No server runs" not in again.err
    done = run("trigger", "--wait", "--json").json
    assert done["run"]["id"] == asked["run"]["id"]
    assert done["model"]["state"] == "champion"
    run("trigger")
    assert "is cancelled" in run("cancel").out


def test_a_training_whose_model_waits_is_not_followed_for_ever(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.0)
    run("collect", rows(home / "a.jsonl", 40))
    run("train")
    run("train", "--force")
    run("experiment", "--versions", "1", "--shares", "0.3", "--why", "to see")
    said = run("train", "--force")
    assert "v3 is passed, and waits for the canary or the experiment under way." in said.out
    assert run("rollback").out == "The experiment has ended. v2 answers for toy.\n"


def test_a_model_that_cannot_be_judged_now_is_judged_later(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.0)
    settings = home / "evergreen.toml"
    settings.write_text(settings.read_text().replace("gate = {", 'gate = { golden = "golden.jsonl",'))
    run("collect", rows(home / "a.jsonl", 40))
    said = run("train")
    assert "v1: not judged. v1 cannot be judged now: the golden cases golden.jsonl cannot be read" in said.out
    assert "v1 is candidate; it is judged once that is put right" in said.out
    (home / "golden.jsonl").write_text("")
    run("train", "--force")
    assert [model["state"] for model in run("models", "--json").json] == ["champion", "rolled_back"]  # overtaken


def test_a_training_that_fails_says_why(run: Run, home: Path) -> None:
    run("collect", rows(home / "a.jsonl", 20))
    said = run("train", "--set", "fail=true")
    assert said.code == 1
    assert "this recipe was told to fail" in said.err


def spawn(home: Path, *argv: str) -> subprocess.Popen[str]:
    # As in a terminal: whoever runs the tests in the background has SIGINT ignored, and that is inherited.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = f"{listen}import sys; from evergreen.cli import main; sys.exit(main())"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, *argv], cwd=home, stdout=pipe, stderr=pipe, text=True)


def test_ctrl_c_cancels_the_training_and_ends_with_130(run: Run, home: Path) -> None:
    lay_down(home, "toy", runner="process")
    run("collect", rows(home / "a.jsonl", 20))
    with spawn(home, "train", "--set", "sleep_s=60") as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "training" in line:
                break
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    assert run("status", "toy", "--json").json["last_run"]["state"] == "cancelled"


def test_commands_and_a_running_server_share_a_project(run: Run, home: Path) -> None:
    run("collect", rows(home / "a.jsonl", 20))
    with spawn(home, "up") as child:
        try:
            assert child.stderr is not None
            assert any("Evergreen is up at http://127.0.0.1:" in line for line in child.stderr)
            assert "runs at http" in run("doctor").out
            said = run("trigger", "--wait", "--json")
            assert said.json["model"]["version"] == 1
            deadline = time.monotonic() + 20
            while run("status", "toy", "--json").json["champion"] is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert f"pid {child.pid}" in run("status").out
            child.send_signal(signal.SIGINT)
            child.communicate(timeout=30)
        finally:
            child.kill()
    assert child.returncode in (0, 130)
    assert "server: not running" in run("status").out


def test_a_project_left_by_a_killed_server_is_not_taken_for_served(home: Path, run: Run) -> None:
    run("status")
    state = project.open(home / "evergreen.toml").state
    with spawn(home, "--version") as child:
        child.communicate()
    (state / "server.json").write_text(json.dumps({"pid": child.pid, "url": "http://127.0.0.1:1"}))
    assert "server: not running" in run("status").out
    (state / "server.json").write_text(json.dumps({"pid": os.getpid(), "url": "http://127.0.0.1:1"}))
    assert "server: http://127.0.0.1:1" in run("status").out
