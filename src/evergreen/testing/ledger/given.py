"""Samples and records to put into a ledger."""

from __future__ import annotations

from typing import Any

from evergreen.core.records import Dataset, Model, Run, Sample
from evergreen.core.states import ModelState, RunState, SampleState

S, R, M = SampleState, RunState, ModelState
#: Who says so, and why.
WHO: dict[str, Any] = {"by": "run", "because": "a test"}


def a_sample(id: str, **more: Any) -> Sample:
    """Return a labelled sample."""
    return Sample(**{"id": id, "loop": "l", "input": {"x": 1}, "label": "yes", **more})


def some(n: int, start: int = 0, **more: Any) -> list[Sample]:
    """Return that many labelled samples."""
    return [a_sample(f"s{i}", **more) for i in range(start, start + n)]


def a_run(id: str, state: RunState = R.REQUESTED, **more: Any) -> Run:
    """Return a run."""
    return Run(**{"id": id, "loop": "l", "state": state, "why": "a test", **more})


def a_model(id: str, version: int, state: ModelState = M.CANDIDATE, **more: Any) -> Model:
    """Return a model."""
    return Model(**{"id": id, "loop": "l", "state": state, "version": version, "key": f"models/{id}", **more})


def a_dataset(id: str, version: int, **more: Any) -> Dataset:
    """Return a dataset."""
    sizes = {"as_of": 9, "collected": 9, "train": 7, "holdout": 2}
    return Dataset(**{"id": id, "loop": "l", "version": version, "digest": "d", "key": id, **sizes, **more})


def ids(records: Any) -> list[str]:
    """Return the ids, in order."""
    return [r.id for r in records]
