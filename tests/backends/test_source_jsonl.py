"""The jsonl source: one object on a line, and what goes to quarantine."""

from __future__ import annotations

import pytest

from evergreen.core import plugins
from evergreen.core.config import Use


def read(home, data: bytes, **options):
    (home / "log.jsonl").write_bytes(data)
    source = plugins.make("sources", Use(use="jsonl", path="log.jsonl", **options), home=home)
    assert source.origin == "jsonl:log.jsonl"
    return source.pull(None, 1000)


def test_objects_are_rows(tmp_path):
    pulled = read(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\n  {"b": [true, null, "\xc3\xa4"]}\n{"half": ')
    assert [row.row for row in pulled.rows] == [{"a": 1}, {"b": [True, None, "ä"]}]
    assert [row.where for row in pulled.rows] == ["line 1", "line 3"]
    assert pulled.rejects == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1]", "expected a JSON object, found list"),
        (b"null", "expected a JSON object, found NoneType"),
        (b'{"a": NaN}', "not JSON: "),
        (b'{"a": 1', "not JSON: "),
        (b'{"a": 1} {"a": 2}', "not JSON: "),
        (b'{"a": "\xff"}', "not JSON: "),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON: "),
        (b'{"a": "\\ud800"}', "not JSON: "),
        (b'{"a": ' * 20_000, "nested too deeply"),
        (b'{"a": "\\u0000"}', "there is a NUL character in it"),
        (b"\0\0\0", "not JSON: "),
        (b" " + b"x" * 1024 * 1024, "the line is longer than 1 MiB"),
    ],
)
def test_other_lines_are_quarantined(tmp_path, line, reason):
    pulled = read(tmp_path, b'{"n": 1}\n' + line + b'\n{"n": 2}\n')
    assert [row.row["n"] for row in pulled.rows] == [1, 2]
    assert [reject.where for reject in pulled.rejects] == ["line 2"]
    assert reason in pulled.rejects[0].reason
    assert len(pulled.rejects[0].raw) <= 2000
    assert "\0" not in pulled.rejects[0].raw


def test_an_escaped_backslash_is_no_nul(tmp_path):
    assert read(tmp_path, b'{"a": "\\\\u0000"}\n').rows[0].row == {"a": "\\u0000"}


def test_subject_and_consent_are_taken_from_the_row(tmp_path):
    pulled = read(tmp_path, b'{"subject": "anna", "consent": true}\n{"subject": 3, "consent": 1}\n{"consent": "Yes"}\n')
    assert [(row.subject, row.consent) for row in pulled.rows] == [("anna", True), (None, False), (None, True)]


def test_a_complete_file_needs_no_last_line_end(tmp_path):
    assert len(read(tmp_path, b'{"a": 1}\n{"a": 2}', whole=True).rows) == 2
