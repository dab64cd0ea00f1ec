"""Which versions keep their files, and that the others lose them once, with a word about it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen import engine
from evergreen.core.errors import Conflict, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.records import Event, Model
from evergreen.core.states import IN_SERVICE, ON_THE_WAY, ModelState
from evergreen.stages import retain

Open = Callable[..., Loop]
AT_ONCE = 'steps = [1.0]\nhold = "0s"\n'


def turns(loop: Loop, feed: Callable[..., None], trainings: int) -> None:
    for _ in range(trainings):
        feed(loop, 60, "a")
        for _ in range(6):
            engine.tick(loop)


def stored(loop: Loop) -> set[int]:
    keys = set(loop.store.list("models"))
    return {m.version for m in loop.ledger.find(Model, "l") if m.key in keys}


def test_the_newest_the_champion_and_its_predecessor_stay(open_loop: Open, feed: Callable[..., None]) -> None:
    loop = open_loop(rollout=AT_ONCE + "keep = 2")
    turns(loop, feed, 6)
    versions = [m.version for m in loop.ledger.find(Model, "l")]
    assert versions == [1, 2, 3, 4, 5, 6]
    assert stored(loop) == {4, 5, 6}  # the champion is v6
    gone = [e.details["version"] for e in loop.ledger.find(Event, "l") if e.what == "files deleted"]
    assert gone == [1, 2, 3]
    assert not any(key.startswith("evaluations") and m.version < 4 for m in loop.ledger.find(Model, "l")
                   for key in loop.store.list(str(m.details["evaluation"])))  # fmt: skip
    assert engine.rollback(loop, by="test").version == 5
    turns(loop, feed, 0)
    with suppress(Conflict):  # it says so, and serves on
        engine.promote(loop, 1, by="test", why="test", force=True)
        pytest.fail("a version without files was promoted")


def test_everything_stays_unless_it_is_asked_for(open_loop: Open, feed: Callable[..., None]) -> None:
    loop = open_loop(rollout=AT_ONCE)
    turns(loop, feed, 4)
    assert stored(loop) == {1, 2, 3, 4}


def test_a_store_that_is_away_is_asked_again(
    open_loop: Open, feed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = open_loop(rollout=AT_ONCE + "keep = 1")

    def away(key: str) -> None:
        raise Unavailable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(loop.store, "delete", away)
        with suppress(Unavailable):
            turns(loop, feed, 4)
        for _ in range(3):
            with pytest.raises(Unavailable):
                retain.sweep(loop)
    retain.sweep(loop)
    retain.sweep(loop)
    models = loop.ledger.find(Model, "l")
    gone = [e.details["version"] for e in loop.ledger.find(Event, "l") if e.what == "files deleted"]
    assert gone == sorted(set(gone))
    assert {m.version for m in models} - set(gone) == stored(loop)
    assert all(retain.swept(loop, m) == (m.version in gone) for m in models)


@given(
    states=st.lists(st.sampled_from(list(ModelState)), max_size=12),
    keep=st.integers(1, 5),
    former=st.integers(1, 2),
)
@settings(max_examples=200, deadline=None)
def test_nobody_who_may_be_wanted_goes(states: list[ModelState], keep: int, former: int) -> None:
    made = [
        Model(id=str(n), loop="l", state=state, version=n, key=f"models/{n}", seq=n)
        for n, state in enumerate(states, start=1)
    ]
    stay = retain.needed(made[::-1], keep, former)
    for model in made:
        if model.state in (ModelState.CANDIDATE, *ON_THE_WAY, *IN_SERVICE):
            assert model.id in stay
    retired: list[Any] = [m.id for m in made if m.state is ModelState.RETIRED]
    assert set(retired[-former:]) <= stay
    others = [m.id for m in made if m.state is not ModelState.CHAMPION]
    assert set(others[-keep:]) <= stay
    moving = sum(m.state in (ModelState.CANDIDATE, *ON_THE_WAY, *IN_SERVICE) for m in made)
    assert len(stay) <= keep + former + moving
