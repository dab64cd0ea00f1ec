"""What a recipe exports for other systems must decide as its model does; a store that is away is waited for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evergreen.core.config import Use
from evergreen.core.errors import InvalidInput, JobFailed, NotFound, Unavailable
from evergreen.core.plugins import make
from evergreen.core.ports import Progress, Store, Ticket
from evergreen.core.recipe import Interface, Job, Predictor
from evergreen.core.records import Json
from evergreen.job import exports, outcome, work
from evergreen.testing.runner import Always, Majority, put_dataset


class Exporter(Majority):
    """Leaves a file beside the model, as if for a phone."""

    says: Any = "a"

    def train(self, job: Job) -> Mapping[str, Json]:
        details = super().train(job)
        (job.out / "exports").mkdir()
        (job.out / "exports" / "phone.odd").write_text(json.dumps(self.says))
        return details

    def adopt(self, upload: Path, interface: Interface) -> Predictor:
        return Always(json.loads((upload / "model.onnx").read_text()))

    def decision(self, output: Json) -> Json:
        return output["answer"] if isinstance(output, dict) else output


class Odd:
    """Reads `.odd`."""

    suffixes: Sequence[str] = (".odd",)

    def read(self, file: Path, out: Path) -> Interface:
        if file.read_text() == '"unreadable"':
            raise InvalidInput("that is no model")
        (out / "model.onnx").write_text(file.read_text())
        return Interface("text", "input", ["a", "b"])


@pytest.fixture(autouse=True)
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    real = exports._format
    monkeypatch.setattr(exports, "_format", lambda file: ("odd", Odd()) if file.suffix == ".odd" else real(file))
    monkeypatch.setattr("evergreen.job.attempt._recipe", lambda said: Exporter(Exporter.Options()))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made: Store = make("stores", Use(use="local"), home=tmp_path, state=tmp_path / "state")
    return made


@pytest.fixture
def ticket(store: Store, tmp_path: Path) -> Ticket:
    put_dataset(store, tmp_path / "data", "datasets/d1", "aab", "ab" * 40)
    return Ticket("r1", "l", 1, {"use": "x:Exporter"}, "datasets/d1", "models/r1")


def train(ticket: Ticket, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Any) -> Progress:
    monkeypatch.setattr(Exporter, "says", says)
    return work(ticket, store, lambda _: None, tmp_path / "work")


@pytest.mark.parametrize("says", ["a", {"answer": "a", "confidence": 0.7}])
def test_one_that_decides_the_same(
    ticket: Ticket, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Any
) -> None:
    done = train(ticket, store, tmp_path, monkeypatch, says)
    assert done.details["exports"] == [{"file": "phone.odd", "format": "odd", "rows": 80, "agree": 1.0}]


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("b", "decides otherwise than the model on 80 of 80 rows; on row holdout-0 it says 'b', the model 'a'"),
        ("unreadable", "phone.odd cannot be read back: that is no model"),
    ],
)
def test_one_that_does_not_fails_the_training(
    ticket: Ticket, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, why: str
) -> None:
    with pytest.raises(JobFailed, match=why):
        train(ticket, store, tmp_path, monkeypatch, says)
    assert list(store.list("models")) == []


def test_one_that_nobody_can_read(
    ticket: Ticket, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with pytest.raises(JobFailed, match="No installed format reads"):
        exports._format(tmp_path / "phone.xyz")
    assert exports._format(tmp_path / "Model.ONNX")[0] == "onnx"


# --- The store is away ----------------------------------------------------------------------------------------


class Away:
    """A store whose calls fail so many times before they work."""

    exclusive, staleness_s = True, 30.0

    def __init__(self, real: Store, times: int, error: Exception) -> None:
        self._real, self._left, self._error = real, times, error

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left >= 0:
                raise self._error
            return getattr(self._real, name)(*given, **named)

        return call


def test_it_is_waited_for(ticket: Ticket, store: Store, tmp_path: Path) -> None:
    slept: list[float] = []
    said: list[str] = []
    done = outcome(
        ticket,
        Away(store, 4, Unavailable("no network")),  # type: ignore[arg-type]
        lambda progress: said.append(progress.phase),
        tmp_path / "work",
        sleep=slept.append,
    )
    assert done.state == "done", done
    assert "waiting for the store: no network" in said
    assert slept == [1.0, 2.0, 4.0, 5.0]


def test_but_not_for_ever(ticket: Ticket, store: Store, tmp_path: Path) -> None:
    slept: list[float] = []
    lost = outcome(
        ticket,
        Away(store, 10000, Unavailable("no network")),  # type: ignore[arg-type]
        lambda _: None,
        tmp_path / "work",
        sleep=slept.append,
    )
    assert (lost.state, lost.failure) == ("failed", "lost")
    assert 600 < sum(slept) < 620


def test_what_has_not_come_through_is_waited_for_as_long_as_the_store_may_take(
    ticket: Ticket, store: Store, tmp_path: Path
) -> None:
    slept: list[float] = []
    away = Away(store, 10000, NotFound("not there"))
    failed = outcome(ticket, away, lambda _: None, tmp_path / "work", sleep=slept.append)  # type: ignore[arg-type]
    assert (failed.state, failed.error) == ("failed", "not there")
    assert 30 < sum(slept) < 40
