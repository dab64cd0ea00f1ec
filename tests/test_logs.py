"""Log lines: one JSON object each, which says what it is about and holds no secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen import logs
from evergreen.logs import Discreet, JsonLines, concerning

SECRETS = {
    "DROPBOX_APP_KEY": "dbx-app-key-1",
    "DROPBOX_APP_SECRET": "dbx-secret-2",
    "DROPBOX_REFRESH_TOKEN": "dbx-refresh-3",
    "GOOGLE_SERVICE_ACCOUNT": '{"type": "service_account", "private_key": "-----BEGIN\\ngoog-private-4\\n-----END"}',
    "GOOGLE_CLIENT_SECRET": "goog-secret-5",
    "GOOGLE_REFRESH_TOKEN": "goog-refresh-6",
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE7",
    "AWS_SECRET_ACCESS_KEY": "aws/secret+8==",
    "AWS_SESSION_TOKEN": "aws-session-9",
    "MLFLOW_TRACKING_TOKEN": "mlflow-token-10",
    "MLFLOW_TRACKING_PASSWORD": "mlflow-password-11",
    "HOOK_SECRET": "hook-secret-12",
    "SHOP_API_KEY": "shop-api-key-13",
    "EVERGREEN_KEY": "egk_0123456789abcdef",
    "TEAM_URLS": "slack://T14/B15/verysecret16 mailto://anna:hunter17@example.org",
}


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Log into a file, with every secret set; put logging back as it was."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    root, own = logging.getLogger(), logging.getLogger("evergreen")
    before = (list(root.handlers), root.level, own.level)
    for handler in before[0]:
        root.removeHandler(handler)
    logs.configure(tmp_path / "server.log", ["TEAM_URLS"])
    yield tmp_path / "server.log"
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in before[0]:
        root.addHandler(handler)
    root.setLevel(before[1])
    own.setLevel(before[2])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_no_line_holds_a_secret(quiet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("evergreen.test")
    for value in SECRETS.values():
        log.info("said %s", value)
        try:
            raise ValueError(f"{value} is wrong")
        except ValueError:
            log.exception("failed with %s", value)
        with concerning(subscriber=value):
            log.warning("about")
    log.info("postgresql://anna:hunter18@db/evergreen Authorization: Bearer abcdefgh19")
    log.info(json.dumps(SECRETS))
    said = quiet.read_text() + capsys.readouterr().err
    pieces = [piece for value in SECRETS.values() for piece in value.split() if "{" not in value]
    assert len(pieces) == 15
    for piece in [*pieces, "goog-private-4", "verysecret16", "hunter17", "hunter18", "abcdefgh19"]:
        assert piece not in said, piece
    assert "***" in said
    assert "postgresql://***@db/evergreen" in said


def test_a_line_says_what_it_is_about(quiet: Path) -> None:
    log = logging.getLogger("evergreen.test")
    with concerning(loop="shop", request_id="r1"):
        with concerning(run="run7", loop="other"):
            log.info("inner\nof two lines")
        log.warning("outer", extra={"model": "m3"})
    log.error("outside")
    inner, outer, outside = lines(quiet)
    assert (inner["loop"], inner["run"], inner["request_id"], inner["level"]) == ("other", "run7", "r1", "info")
    assert inner["event"] == "inner\nof two lines"
    assert (outer["loop"], outer["model"], "run" in outer) == ("shop", "m3", False)
    assert set(outside) == {"timestamp", "level", "logger", "event"}


def test_the_history_is_for_programs_and_the_level_can_be_set(
    quiet: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger(logs.HISTORY).info("new champion: better")
    logging.getLogger("evergreen.test").debug("not yet")
    monkeypatch.setenv("EVERGREEN_LOG", "debug")
    logs.configure(quiet)
    logging.getLogger("evergreen.test").debug("now")
    assert [line["event"] for line in lines(quiet)] == ["new champion: better", "now"]
    assert "champion" not in capsys.readouterr().err


@given(st.text(), st.text())
def test_whatever_is_said_is_one_line_of_json(message: str, loop: str) -> None:
    record = logging.LogRecord("evergreen", logging.INFO, "", 0, message, None, None)
    try:
        message.encode()
    except UnicodeEncodeError:
        return
    with concerning(loop=loop):
        line = JsonLines(Discreet(environ={})).format(record)
    assert "\n" not in line
    assert json.loads(line)["level"] == "info"


def test_words_are_no_secrets() -> None:
    clean = Discreet(environ={"KEY": "yes", "TOKEN": "", "PATH": "/usr/bin", "KEYBOARD": "german-layout"}).clean
    assert clean("yes, /usr/bin has a german-layout") == "yes, /usr/bin has a german-layout"
    clean = Discreet(environ={"PHRASE_SECRET": "correct horse"}).clean
    assert clean("that is correct; correct horse is not") == "that is correct; *** is not"
