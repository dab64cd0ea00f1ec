"""Tallies are what a recount of the samples says, however often the writer is killed and everything sent again."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evergreen.backends.ledger.memory import MemoryLedger
from evergreen.backends.ledger.sql import Options, SqlLedger
from evergreen.core.ports import Ledger, Tally
from evergreen.core.recipe import PluginOptions
from evergreen.core.records import Sample
from evergreen.testing.ledger.outcomes import asked, recount, told

BATCHES, MODELS = 90, "mn"


def batches(seed: int) -> Iterator[tuple[list[Sample], list[Sample], dict[str, Tally]]]:
    """Make predictions and, of old and new ones, labels, figures, corrections: the same for the same seed."""
    chance, answered = random.Random(seed), 0
    for _ in range(BATCHES):
        given = []
        for _ in range(chance.randrange(4)):
            given.append(asked(f"p{answered}", model=chance.choice(MODELS)))
            answered += 1
        said = []
        for _ in range(chance.randrange(4) if answered else 0):
            n = chance.randrange(max(0, answered - 30), answered)
            right, model = chance.random() < 0.6, MODELS[n % 2]
            label: dict[str, Any] = {"label": "yes" if right else "no", "right": right}
            score = {"score": float(chance.randrange(-5, 6))}
            implied = {"right": False, "origin": "correction"}
            said.append(told(f"p{n}", model=model, **chance.choice([label, score, {**label, **score}, implied])))
        traffic: dict[str, Tally] = {}
        for s in given:
            traffic[s.model or ""] = traffic.get(s.model or "", Tally()) + Tally(answered=1)
        yield given, said, traffic


def write(ledger: Ledger, seed: int, start: int) -> Iterator[int]:
    """Store batches from `start` on; what came of predictions is sent again, predictions are not."""
    for n, (given, said, traffic) in enumerate(batches(seed)):
        if n < start:
            continue
        if given and ledger.sample("l", given[0].id) is not None:
            given, traffic = [], {}
        ledger.append("l", [*given, *said], traffic=traffic)
        yield n


def opened(url: str) -> SqlLedger:
    return SqlLedger(Options(url=url), home=Path(), state=Path(), now=lambda: datetime.now(UTC))


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("EVERGREEN_LEDGER", raising=False)
    return f"sqlite:///{tmp_path}/ledger.db" if request.param == "sqlite" else request.getfixturevalue("url")


def tallies(ledger: Ledger) -> dict[str, Tally]:
    return {model: ledger.tally(model) for model in MODELS}


@pytest.mark.parametrize("seed", range(2))
def test_the_tallies_are_what_a_recount_says_whenever_the_writer_is_killed(
    place: str, seed: int, tmp_path: Path
) -> None:
    chance, reached, kills = random.Random(seed), 0, 0
    with closing(opened(place)) as ledger:
        while reached < BATCHES - 1:
            command = [sys.executable, __file__, place, str(seed), str(max(0, reached - 4))]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
                assert writer.stdout is not None
                for _ in range(chance.randrange(8, 40)):
                    line = writer.stdout.readline()
                    reached = max(reached, int(line or 0))
                writer.kill()
                reached = max([reached, *map(int, writer.stdout.read().split())])
            kills += 1
            with ledger.together():  # what the killed one had begun has ended
                assert tallies(ledger) == recount(ledger.samples("l", labelled=False))
        whole = MemoryLedger(PluginOptions(), home=tmp_path, state=tmp_path, now=lambda: datetime.now(UTC))
        assert len(list(write(whole, seed, 0))) == BATCHES
        assert tallies(ledger) == tallies(whole)
        assert ledger.counts("l") == whole.counts("l")
        assert kills > 2


if __name__ == "__main__":
    for n in write(opened(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])):
        print(n, flush=True)
