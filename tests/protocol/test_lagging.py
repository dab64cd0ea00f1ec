"""The store that lags keeps the promises of every store, only later."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from lagging import LaggingOptions, LaggingStore

from evergreen.core.errors import Corrupt, NotFound
from evergreen.core.ports import Store
from evergreen.testing.store import StoreContract, files, write


def view(name: str, place: Path, monkeypatch: pytest.MonkeyPatch, lag_s: float = 0.0) -> LaggingStore:
    """Return the shared folder as one machine has it."""
    monkeypatch.setenv("EVERGREEN_VIEW", name)
    url = f"lagging:LaggingStore://{place}/shared?lag_s={lag_s}&exclusive=1"
    return LaggingStore(LaggingOptions(url=url), home=place, state=place)


class TestAtNoDistance(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        return view("a", tmp_path, monkeypatch)


def test_another_view_sees_everything_later_whole_and_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (view(name, tmp_path, monkeypatch, lag_s=0.6) for name in ("here", "there"))
    folder = write(tmp_path / "in", {"a": b"1", "b": b"2"})
    begin = time.monotonic()
    keys = [f"k/{n}" for n in range(20)]
    for key in keys:
        here.write(key, b"old")
        here.write(key, b"new")
    here.put("f", folder)
    assert all(here.read(key) == b"new" for key in keys)  # one's own words are there at once
    assert list(here.list("k")) == sorted(keys)
    seen: dict[str, float] = {}
    while len(seen) < len(keys) + 1:
        assert time.monotonic() - begin < 20
        for key in keys:
            try:
                assert there.read(key) in (b"old", b"new")
            except NotFound:
                continue
            seen.setdefault(key, time.monotonic())
        try:
            there.get("f", tmp_path / "out")
        except (NotFound, Corrupt):
            continue
        seen.setdefault("f", time.monotonic())
    assert files(tmp_path / "out") == files(folder)
    first = sorted(keys, key=lambda key: seen[key])
    assert first != keys  # keys overtake each other
    time.sleep(max(0.0, begin + 2.0 - time.monotonic()))
    assert all(there.read(key) == b"new" for key in keys)
    assert list(there.list("k")) == sorted(keys)
