"""However a file grows and whatever is in it: every good line once, and no other error than the documented ones."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.testing.source import drain

FILES = {"csv": "log.csv", "jsonl": "log.jsonl"}

cells = st.text(alphabet='ab ,"\nä0', max_size=5)
junk = st.binary(max_size=12) | st.sampled_from(
    [b'"', b'x,"', b",", b'"\n', b"\r", b"\0", b"\xff", b'a",",', b"{", b"[]"]
)


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


csv_lines = st.tuples(cells, cells).map(lambda row: ",".join(map(quoted, row)).encode() + b"\n")
jsonl_lines = st.dictionaries(cells, cells, max_size=2).map(lambda row: json.dumps(row).encode() + b"\n")
lines = {"csv": csv_lines, "jsonl": jsonl_lines}


def everything(kind: str, home: Path, cursor: str | None = None, limit: int = 1000) -> tuple[list, list, str | None]:
    source = plugins.make("sources", Use(use=kind, path=FILES[kind]), home=home)
    rows, rejects, more = [], [], True
    while more:
        pulled = source.pull(cursor, limit)
        assert len(pulled.rows) + len(pulled.rejects) <= limit
        rows, rejects = rows + list(pulled.rows), rejects + list(pulled.rejects)
        cursor, more = pulled.cursor, pulled.more
    return rows, rejects, cursor


@pytest.mark.parametrize("kind", FILES)
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_any_split_into_appends_gives_the_same(kind, data):
    """Good and bad lines, appended in any pieces, pulled at any moment with any limit."""
    whole = b"a,b\n" if kind == "csv" else b""
    whole += b"".join(data.draw(st.lists(lines[kind] | junk, max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        rows, rejects, cursor = [], [], None
        with (home / FILES[kind]).open("ab", buffering=0) as log:
            for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
                log.write(whole[start:end])
                more_rows, more_rejects, cursor = everything(kind, home, cursor, data.draw(st.integers(1, 5)))
                rows, rejects = rows + more_rows, rejects + more_rejects
        at_once = everything(kind, home)
    assert (rows, rejects) == at_once[:2]
    assert len({row.id for row in rows}) == len(rows)


@pytest.mark.parametrize("kind", FILES)
@given(noise=st.lists(junk, max_size=8).map(b"".join))
@settings(deadline=None, max_examples=200)
def test_good_lines_after_noise_are_not_lost(kind, noise):
    """Noise may cost itself; a quote in it may not swallow what follows for longer than its bound."""
    good = [str(i) for i in range(120)]
    if kind == "csv":
        text = b"key,value\n" + noise + b"\n" + b"".join(b"%s,good\n" % i.encode() for i in good)
    else:
        text = noise + b"\n" + b"".join(b'{"key":"%s"}\n' % i.encode() for i in good)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILES[kind]).write_bytes(text)
        rows, _, _ = everything(kind, Path(folder))
    assert [row.row.get("key") for row in rows][-len(good) :] == good  # a line of noise may be an object, too


@given(start=st.binary(max_size=300))
@settings(deadline=None, max_examples=200)
def test_any_bytes_at_all_are_read_to_the_end(start):
    """No input makes the source raise or stand still, wherever the header is."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "log.csv").write_bytes(start + b"\n" * 101)
        _, _, cursor = everything("csv", Path(folder))
        assert json.loads(cursor)["at"] == len(start) + 101


@given(rotations=st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.sampled_from(["rename", "copy", "none"]))))
@settings(deadline=None, max_examples=100)
def test_any_order_of_writes_rotations_and_pulls_gives_every_row_once(rotations):
    """Rename and copytruncate, with numbered generations, pulled now and then."""
    with tempfile.TemporaryDirectory() as folder:
        home, path = Path(folder), Path(folder) / "log.csv"
        written, got, cursor, generation = 0, [], None, 0
        for count, pull, rotate in [(1, True, "none"), *rotations, (1, True, "none")]:
            with path.open("a") as log:
                if log.tell() == 0:
                    log.write("n,value\n")
                for _ in range(count):
                    written += 1
                    log.write(f"{written},x\n")
            if pull:
                rows, rejects, cursor = everything("csv", home, cursor, limit=2)
                assert rejects == []
                got += rows
            if rotate == "none":
                continue
            generation += 1
            old = home / f"log.csv-2024{generation:04}"
            if rotate == "rename":
                path.rename(old)
            else:
                old.write_bytes(path.read_bytes())
                path.write_bytes(b"")
    assert [row.row["n"] for row in got] == [str(n) for n in range(1, written + 1)]
    assert len({row.id for row in got}) == written


WRITER = """
import os, random, sys
random.seed(7)
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
data = b"n,text\\n" + b"".join(b'%d,"row %d\\nof many"\\n' % (i, i) for i in range(10_000))
at = 0
while at < len(data):
    at += os.write(fd, data[at:at + random.randrange(1, 2000)])
"""


def test_a_process_that_appends_while_we_pull(tmp_path):
    """10,000 rows written in random fragments, each read once and whole."""
    source = plugins.make("sources", Use(use="csv", path="log.csv"), home=tmp_path)
    rows, cursor = [], None
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "log.csv")]) as writer:
        while writer.poll() is None:
            new, cursor = drain(source, cursor, limit=70)
            rows += new
    assert writer.returncode == 0
    rows += drain(source, cursor)[0]
    assert [row.row["n"] for row in rows] == [str(i) for i in range(10_000)]
    assert all(row.row["text"] == f"row {row.row['n']}\nof many" for row in rows)
