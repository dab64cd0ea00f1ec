"""The csv source: cells, quotes, headers, and everything that goes to quarantine."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, Corrupt, InvalidInput
from evergreen.core.ports import Pulled, Source


def source(home: Path, **options) -> Source:
    return plugins.make("sources", Use(use="csv", **{"path": "log.csv", **options}), home=home)


def read(home: Path, data: bytes, **options) -> Pulled:
    (home / "log.csv").write_bytes(data)
    return source(home, **options).pull(None, 10_000)


def values(pulled: Pulled) -> list[tuple]:
    return [tuple(row.row.values()) for row in pulled.rows]


def reasons(pulled: Pulled) -> list[tuple[str, str]]:
    return [(reject.where, reject.reason) for reject in pulled.rejects]


def test_rows_carry_names_place_and_line(tmp_path):
    pulled = read(tmp_path, b"a,b\n1,2\n3,4\n")
    assert [dict(row.row) for row in pulled.rows] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert [(row.where, row.raw) for row in pulled.rows] == [("line 2", "1,2"), ("line 3", "3,4")]
    assert source(tmp_path).origin == "csv:log.csv"


def test_half_a_line_waits(tmp_path):
    first = read(tmp_path, b"a,b\n1,2\n3,")
    assert values(first) == [("1", "2")]
    (tmp_path / "log.csv").write_bytes(b"a,b\n1,2\n3,4")
    assert source(tmp_path).pull(first.cursor, 9).rows == []
    (tmp_path / "log.csv").write_bytes(b"a,b\n1,2\n3,45\n")
    assert values(source(tmp_path).pull(first.cursor, 9)) == [("3", "45")]


def test_a_complete_file_needs_no_last_line_end(tmp_path):
    pulled = read(tmp_path, b"a,b\n1,2\n3,4", whole=True)
    assert values(pulled) == [("1", "2"), ("3", "4")]
    again = source(tmp_path, whole=True).pull(pulled.cursor, 9)
    assert (again.rows, again.cursor) == ([], pulled.cursor)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n", [("1", "2")]),
        (b"\n\na,b\n\n1,2\n   \n3,4\n", [("1", "2"), ("3", "4")]),
        (b'a,b\n"1\n2",3\n4,"5""6"\n', [("1\n2", "3"), ("4", '5"6')]),
        (b"a,b\n1,2\na,b\n3,4\n\xef\xbb\xbfa,b\n5,6\n", [("1", "2"), ("3", "4"), ("5", "6")]),
        (b" a , b \n1,2\n", [("1", "2")]),
        (b",a\n0,1\n", [("0", "1")]),
        ("a,b\nä,\u2028\n".encode(), [("ä", "\u2028")]),
    ],
    ids=["bom and crlf", "blank lines", "quotes", "repeated header", "padded header", "unnamed index", "unicode"],
)
def test_what_logs_look_like(tmp_path, data, expected):
    pulled = read(tmp_path, data)
    assert values(pulled) == expected
    assert pulled.rejects == []


def test_another_header_in_the_middle_holds_from_there_on(tmp_path):
    pulled = read(tmp_path, b"a,b\n1,2\nb,a\n3,4\nb,a,c\n5,6,7\na,b\n8,9\n")
    assert [dict(row.row) for row in pulled.rows] == [
        {"a": "1", "b": "2"},
        {"b": "3", "a": "4"},
        {"b": "5", "a": "6", "c": "7"},
        {"a": "8", "b": "9"},
    ]
    assert pulled.rejects == []


def test_another_header_is_remembered_by_the_cursor(tmp_path):
    first = read(tmp_path, b"a,b\n1,2\nb,a\n")
    (tmp_path / "log.csv").write_bytes(b"a,b\n1,2\nb,a\n3,4\n")
    assert dict(source(tmp_path).pull(first.cursor, 9).rows[0].row) == {"b": "3", "a": "4"}


def test_other_encodings_and_delimiters(tmp_path):
    assert values(read(tmp_path, "a;b\nä,;2\n".encode("latin-1"), encoding="latin-1", delimiter=";")) == [("ä,", "2")]


def test_bad_lines_go_to_quarantine_and_the_next_is_read(tmp_path):
    bad = [b"1,2,3,4", b"1,2,3", b"\xff,2,3,4,5,6", b"\0,2,3,4,5,6", b'"x"y,2,3,4,5,6', b"1,2\r3,3,4,5,6"]
    good = b"1,2,3,4,5,6"
    pulled = read(tmp_path, b"\n".join([b"a,b,c,d,e,f", *(line for b in bad for line in (b, good)), b""]))
    assert len(pulled.rows) == len(bad)
    assert reasons(pulled)[:4] == [
        ("line 2", "expected 6 cells, found 4"),
        ("line 4", "expected 6 cells, found 3"),
        ("line 6", "byte 1 of the line is not utf-8"),
        ("line 8", "there is a NUL byte in it"),
    ]
    assert [reason.partition(":")[0] for _, reason in reasons(pulled)[4:]] == ["not CSV", "not CSV"]
    assert pulled.rejects[0].raw == "1,2,3,4"
    assert "\0" not in pulled.rejects[3].raw


def test_a_quote_that_is_never_closed_costs_one_line(tmp_path):
    lines = [b"a,b", b'1,"2', *(b"%d,x" % i for i in range(300)), b""]
    pulled = read(tmp_path, b"\n".join(lines))
    assert [row.row["a"] for row in pulled.rows] == [str(i) for i in range(300)]
    assert reasons(pulled) == [("line 2", "a quote that opens in it is not closed within 100 lines or 64 KiB")]


def test_a_stray_quote_does_not_join_good_lines(tmp_path):
    pulled = read(tmp_path, b'a,b\n1,"2\n3,4\n5,6\n7,""\n8,"9"\n' + b"10,11\n" * 100)
    assert [row.row["a"] for row in pulled.rows][:4] == ["3", "5", "7", "8"]
    assert len(pulled.rows) == 104
    assert len(pulled.rejects) == 1


def test_an_open_quote_waits_for_its_end(tmp_path):
    first = read(tmp_path, b'a,b\n1,"2\n3,4\n')
    assert (first.rows, first.rejects, first.more) == ([], [], False)
    (tmp_path / "log.csv").write_bytes(b'a,b\n1,"2\n3,4\n5"\n')
    assert values(source(tmp_path).pull(first.cursor, 9)) == [("1", "2\n3,4\n5")]


@pytest.mark.parametrize("ended", [True, False])
def test_a_line_without_measure_costs_one_line(tmp_path, ended):
    long = b"x" * (3 * 1024 * 1024)
    log = tmp_path / "log.csv"
    first = read(tmp_path, b"a,b\n1,2\n" + long + (b"\n3,4\n" if ended else b""))
    assert reasons(first) == [("line 3", "the line is longer than 1 MiB")]
    assert first.rejects[0].raw == "x" * 2000
    if not ended:
        with log.open("ab") as out:
            out.write(b'"xx\n3,4\n')
    rest = source(tmp_path).pull(first.cursor, 9)
    got = [*first.rows, *rest.rows]
    assert [(row.where, row.row["a"]) for row in got] == [("line 2", "1"), ("line 4", "3")]
    assert rest.rejects == []


@pytest.mark.parametrize("line", [b"1,2", b"a,a", b"timestamp,0.5"])
def test_what_is_no_header_is_refused_until_one_comes(tmp_path, line):
    pulled = read(tmp_path, line + b"\n3,4\na,b\n5,6\n")
    assert values(pulled) == [("5", "6")]
    assert [where for where, _ in reasons(pulled)] == ["line 1", "line 2"]
    assert "expected a header line first" in pulled.rejects[0].reason


def test_equal_rows_are_two_rows(tmp_path):
    pulled = read(tmp_path, b"a,b\n1,2\n1,2\n")
    assert len({row.id for row in pulled.rows}) == 2


def test_subject_and_consent_columns(tmp_path):
    pulled = read(tmp_path, b"a,subject,consent\n1,anna,yes\n2,,no\n")
    assert [(row.subject, row.consent) for row in pulled.rows] == [("anna", True), (None, False)]


def test_limit_counts_rows_and_rejects_together(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"a,b\n" + b"1,2\nbad\n" * 5)
    pulled = source(tmp_path).pull(None, 3)
    assert (len(pulled.rows), len(pulled.rejects), pulled.more) == (2, 1, True)


def test_what_cannot_be_read_says_why(tmp_path):
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(InvalidInput, match="is not a file") as e:
        source(tmp_path).pull(None, 9)
    assert e.value.field == "path"


def test_a_link_to_itself_says_why(tmp_path):
    (tmp_path / "log.csv").symlink_to(tmp_path / "log.csv")
    with pytest.raises(ConfigError, match="cannot be read"):
        source(tmp_path).pull(None, 9)


def test_missing_folders_are_no_error(tmp_path):
    assert source(tmp_path, path="no/such/log.csv").pull(None, 9) == Pulled((), (), None)


def test_a_cursor_that_is_none_is_corrupt(tmp_path):
    with pytest.raises(Corrupt, match=r"the cursor of csv:log.csv"):
        source(tmp_path).pull("hello", 9)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"encoding": "utf-16"}, "encoding"), ({"encoding": "klingon"}, "encoding"), ({"delimiter": ";;"}, "delimiter")],
)
def test_wrong_options_name_the_field(tmp_path, options, field):
    with pytest.raises(ConfigError) as e:
        source(tmp_path, **options)
    assert e.value.field == field
