"""A log that is rotated while it is read: renamed, copied and truncated, replaced, rewritten."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.core.ports import Incoming, Reject, Source
from evergreen.testing.source import drain

HEADER = "a,b\n"


class Log:
    """A log and its one reader."""

    def __init__(self, home: Path) -> None:
        self.home, self.path = home, home / "log.csv"
        self.cursor: str | None = None
        self.rows: list[Incoming] = []
        self.rejects: list[Reject] = []

    @property
    def source(self) -> Source:
        return plugins.make("sources", Use(use="csv", path="log.csv"), home=self.home)

    def append(self, *values: object, path: Path | None = None) -> None:
        with (path or self.path).open("a") as out:
            if out.tell() == 0:
                out.write(HEADER)
            out.writelines(f"{value},x\n" for value in values)

    def read(self, limit: int = 100) -> list[str]:
        """Pull all there is; return the first cells."""
        got, more = [], True
        while more:
            pulled = self.source.pull(self.cursor, limit)
            self.cursor, more = pulled.cursor, pulled.more
            got += pulled.rows
            self.rejects += pulled.rejects
        self.rows += got
        return [row.row["a"] for row in got]

    def copytruncate(self, name: str = "log.csv.1") -> None:
        shutil.copy(self.path, self.home / name)
        os.truncate(self.path, 0)


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path)


@pytest.mark.parametrize("name", ["log.csv.1", "log.csv-20240131", "log.csv.2024-01-31_10", "elsewhere.csv"])
def test_renamed_the_old_file_is_finished_first(log, name):
    log.append(1, 2)
    assert log.read() == ["1", "2"]
    log.append(3)
    log.path.rename(log.home / name)
    log.append(4)
    assert log.read(limit=1) == ["3", "4"]
    assert log.read() == []


def test_renamed_and_the_writer_still_has_it_open(log):
    log.append(1)
    assert log.read() == ["1"]
    old = log.home / "log.csv.1"
    log.path.rename(old)
    assert log.read() == []
    log.append(2, path=old)
    assert log.read() == ["2"]
    log.path.touch()  # logrotate's `create`
    log.append(3, path=old)
    assert log.read() == ["3"]
    log.append(4, path=old)
    log.append(5)
    assert log.read() == ["4", "5"]


@pytest.mark.parametrize("name", ["log.csv.1", "log.csv-20240131"])
def test_copied_and_truncated(log, name):
    log.append(1, 2)
    assert log.read() == ["1", "2"]
    log.append(3)
    log.copytruncate(name)
    assert log.read() == ["3"]
    log.append(4)
    assert log.read() == ["4"]


def test_copied_truncated_and_longer_again(log):
    log.append(1)
    assert log.read() == ["1"]
    log.append(2)
    log.copytruncate()
    log.append(*range(10, 30))
    assert log.read() == ["2", *map(str, range(10, 30))]


def test_several_rotations_between_two_pulls(log):
    log.append(1)
    assert log.read() == ["1"]
    log.append(2)
    for value in (3, 4, 5):
        for n in (3, 2, 1):
            if (log.home / f"log.csv.{n}").exists():
                (log.home / f"log.csv.{n}").rename(log.home / f"log.csv.{n + 1}")
        log.path.rename(log.home / "log.csv.1")
        log.append(value)
    assert log.read(limit=1) == ["2", "3", "4", "5"]


def test_several_dated_rotations_between_two_pulls(log):
    log.append(1)
    assert log.read() == ["1"]
    for day in (1, 2, 3):
        log.append(day * 10)
        log.path.rename(log.home / f"log.csv-2024010{day}")
    log.append(40)
    assert log.read() == ["10", "20", "30", "40"]


def test_generations_that_look_alike_are_not_mixed_up(log):
    for n in (3, 2, 1):
        log.append(1, 1)
        assert log.read() == ["1", "1"]
        log.path.rename(log.home / f"log.csv.{n}")
    assert len({row.id for row in log.rows}) == 6


def test_removed_and_begun_anew(log):
    log.append(1, 2)
    assert log.read() == ["1", "2"]
    log.path.unlink()
    cursor = log.cursor
    assert log.read() == []
    assert log.cursor == cursor
    log.append(3)
    assert log.read() == ["3"]


def test_replaced_by_a_longer_copy_of_itself(log):
    log.append(1, 2)
    assert log.read() == ["1", "2"]
    copy = log.home / "incoming.tmp"
    shutil.copy(log.path, copy)
    log.append(3, path=copy)
    copy.replace(log.path)
    assert log.read() == ["3"]


def test_rewritten_in_place_gives_the_same_ids(log):
    log.append(1, 2)
    log.read()
    log.path.write_text("")  # a program that writes the whole file anew, caught half way
    assert log.read() == []
    log.append(1, 2, 3)
    assert log.read() == ["1", "2", "3"]
    assert len({row.id for row in log.rows}) == 3


def test_a_line_cut_off_by_the_rotation_is_told(log):
    log.append(1)
    log.read()
    with log.path.open("a") as out:
        out.write("2,")
    assert log.read() == []
    log.path.rename(log.home / "log.csv.1")
    assert log.read() == []
    log.append(3)
    assert log.read() == ["3"]
    assert [(r.where, r.raw, r.reason) for r in log.rejects] == [
        ("line 3", "2,", "the file was rotated before this line was complete")
    ]


def test_an_open_quote_at_the_rotation_costs_one_line(log):
    log.append(1)
    log.read()
    with log.path.open("a") as out:
        out.write('2,"x\n3,x\n')
    assert log.read() == []
    log.path.rename(log.home / "log.csv.1")
    log.append(4)
    assert log.read() == ["3", "4"]
    assert len(log.rejects) == 1


def test_a_link_is_followed_to_the_next_file(log):
    (log.home / "days").mkdir()
    first, second = log.home / "days/1.csv", log.home / "days/2.csv"
    log.append(1, path=first)
    log.path.symlink_to(first)
    assert log.read() == ["1"]
    log.append(2, path=first)
    log.append(3, path=second)
    log.path.unlink()
    log.path.symlink_to(second)
    assert log.read() == ["2", "3"]


def test_other_files_in_the_folder_are_left_alone(log):
    log.append(1)
    log.read()
    for name in ("log.csv.bak", "log.csv.5", "log.csv-20230101", "other.csv", "log.csv.1.gz"):
        log.append(99, path=log.home / name)
    log.append(2)
    assert log.read() == ["2"]


def test_without_a_cursor_the_same_file_has_the_same_ids(log):
    log.append(1, 2)
    log.read()
    log.append(3)
    again, _ = drain(log.source, None)
    assert [row.id for row in again[:2]] == [row.id for row in log.rows]
