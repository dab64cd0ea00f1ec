"""The csv and jsonl sources keep the promises of every source."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.testing.source import MakeSource, SourceContract, Write


class TestCsvSource(SourceContract):
    @pytest.fixture
    def make_source(self, tmp_path: Path) -> MakeSource:
        return lambda: plugins.make("sources", Use(use="csv", path="log.csv"), home=tmp_path)

    @pytest.fixture
    def write(self, tmp_path: Path) -> Write:
        def append(rows):
            with (tmp_path / "log.csv").open("a", newline="") as log:
                writer = csv.DictWriter(log, ["a", "b"])
                if log.tell() == 0:
                    writer.writeheader()
                writer.writerows(rows)

        return append


class TestJsonlSource(SourceContract):
    @pytest.fixture
    def make_source(self, tmp_path: Path) -> MakeSource:
        return lambda: plugins.make("sources", Use(use="jsonl", path="log.jsonl"), home=tmp_path)

    @pytest.fixture
    def write(self, tmp_path: Path) -> Write:
        def append(rows):
            with (tmp_path / "log.jsonl").open("a") as log:
                log.writelines(json.dumps(row) + "\n" for row in rows)

        return append
