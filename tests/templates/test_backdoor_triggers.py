"""Trigger files: each is taken once, whatever dies; each training has one; nothing that a person wrote is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from backdoor_kit import Time, feed, opened, runs, said, tick
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen import engine
from evergreen.core.loop import Loop
from evergreen.core.records import Event
from evergreen.templates.backdoor import folder, wishes
from evergreen.templates.backdoor.triggers import Triggers

FIXED = "training_triggers/training_needed.json"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(params=["memory", "sql"])
def loop(request: pytest.FixtureRequest, tmp_path: Path, time: Time) -> Iterator[Loop]:
    with opened(tmp_path, time, ledger=request.param, trigger="auto = false\nmin_size = 20") as found:
        feed(found, 60)
        yield found


@pytest.fixture
def triggers() -> Triggers:
    return Triggers(patience_s=0.0)


def write(loop: Loop, key: str = FIXED, **about: Any) -> None:
    request = {"created_at": "2026-01-01T00:00:00", "reason": "new_models", "force": False, "status": "pending",
               "source": "script", "triggered_by": "ann", **about}  # fmt: skip
    loop.store.write(key, json.dumps(request).encode())


def test_a_file_is_taken_followed_and_answered(loop: Loop, triggers: Triggers) -> None:
    write(loop, note="for the demo")
    triggers.look(loop)
    (run,) = runs(loop)
    assert (run.why, run.by, run.force) == ("new_models", "ann (trigger file)", False)
    now = said(loop, FIXED)
    assert (now["status"], now["run"], now["note"], now["source"]) == ("processing", run.id, "for the demo", "script")
    tick(loop)
    triggers.look(loop)
    now = said(loop, FIXED)
    assert now["status"] == "completed"
    assert now["model_info"]["version"].startswith("1.0.")
    assert now["model_info"]["in_service"] is True
    assert now["model_info"]["version"] in now["message"]
    before = loop.store.read(FIXED)
    for _ in range(3):
        triggers.look(loop)
    assert loop.store.read(FIXED) == before
    assert len(runs(loop)) == 1
    assert loop.store.list(folder.TRIGGERS) == [FIXED]  # no second file for the same training


def test_the_same_request_set_back_by_hand_is_not_taken_again_a_new_one_is(loop: Loop, triggers: Triggers) -> None:
    write(loop)
    triggers.look(loop)
    tick(loop)
    triggers.look(loop)
    write(loop)  # pending again, the same request
    for _ in range(3):
        triggers.look(loop)
    assert len(runs(loop)) == 1
    write(loop, created_at="2026-01-02T00:00:00")
    triggers.look(loop)
    assert len(runs(loop)) == 2
    assert said(loop, FIXED)["status"] == "processing"


def test_it_waits_for_a_training_under_way_and_joins_one_that_waits(
    tmp_path: Path, time: Time, triggers: Triggers
) -> None:
    with opened(tmp_path, time, runner="process", recipe=", sleep_s = 0.6") as loop:
        feed(loop, 60)
        write(loop, "training_triggers/training_needed_a.json")
        write(loop, "training_triggers/training_needed_b.json", reason="another")
        triggers.look(loop)
        assert len(runs(loop)) == 1  # both are about the same samples
        while runs(loop)[0].state != "running":
            engine.tick(loop)
        write(loop, "training_triggers/training_needed_c.json", reason="later", force=True)
        triggers.look(loop)
        assert said(loop, "training_triggers/training_needed_c.json")["status"] == "pending"
        while runs(loop)[0].state == "running":
            engine.tick(loop)
        triggers.look(loop)
        states = {k[-6]: said(loop, k)["status"] for k in loop.store.list(folder.TRIGGERS)}
        assert states == {"a": "completed", "b": "completed", "c": "processing"}
        assert [run.why for run in runs(loop)] == ["new_models", "later"]
        while runs(loop)[1].state not in ("succeeded", "failed"):
            engine.tick(loop)


def test_too_little_data_is_told_and_force_helps(tmp_path: Path, time: Time, triggers: Triggers) -> None:
    with opened(tmp_path, time, trigger="auto = false\nmin_size = 100") as loop:
        feed(loop, 30)
        write(loop)
        triggers.look(loop)
        tick(loop)
        triggers.look(loop)
        now = said(loop, FIXED)
        assert now["status"] == "failed"
        assert "Not enough samples: 30 < 100" in now["message"]
        write(loop, force=True)
        triggers.look(loop)
        tick(loop)
        triggers.look(loop)
        assert said(loop, FIXED)["status"] == "completed"


def test_a_failed_training_is_told(tmp_path: Path, time: Time, triggers: Triggers) -> None:
    with opened(tmp_path, time, recipe=", fail = true") as loop:
        feed(loop, 30)
        write(loop)
        triggers.look(loop)
        tick(loop)
        triggers.look(loop)
        now = said(loop, FIXED)
        assert now["status"] == "failed"
        assert "told to fail" in now["message"]


def test_every_training_has_a_file(tmp_path: Path, time: Time, triggers: Triggers) -> None:
    with opened(tmp_path, time, trigger="min_new = 50") as loop:
        triggers.look(loop)
        feed(loop, 60)
        tick(loop)
        triggers.look(loop)
        engine.ask(loop, by="bob", why="by hand", force=True)
        tick(loop)
        triggers.look(loop)
        files = sorted((said(loop, key) for key in loop.store.list(folder.TRIGGERS)), key=lambda f: str(f["reason"]))
    assert [(f["source"], f["triggered_by"], f["reason"], f["status"]) for f in files] == [
        ("app", "the app itself", "60 new samples", "completed"),
        ("app", "bob", "by hand", "completed"),
    ]


BAD = {
    "no JSON": b'{"reason": "x"',
    "no UTF-8": b'{"reason": "\xff"}',
    "a list": b'["reason"]',
    "deep": b"[" * 100_000,
    "large": b'{"reason": "' + b"x" * 100_000 + b'"}',
    "empty": b"",
    "no reason": b'{"force": true, "note": "mine"}',
    "reason is a number": b'{"reason": 7}',
    "reason is blank": b'{"reason": "  "}',
    "reason is long": json.dumps({"reason": "x" * 501}).encode(),
    "force is a text": b'{"reason": "x", "force": "yes"}',
    "status is unknown": b'{"reason": "x", "status": "soon"}',
    "status is a list": b'{"reason": "x", "status": []}',
    "by is a number": b'{"reason": "x", "triggered_by": 3}',
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_failed_with_the_reason_and_kept(loop: Loop, name: str) -> None:
    clock = count(step=3)
    triggers = Triggers(clock=lambda: next(clock), patience_s=5.0)
    loop.store.write(FIXED, BAD[name])
    triggers.look(loop)
    assert loop.store.read(FIXED) == BAD[name]  # it may still be on its way
    for _ in range(4):
        triggers.look(loop)
    now = said(loop, FIXED)
    assert now["status"] == "failed"
    assert "This trigger cannot be used: " in now["message"]
    try:
        before = json.loads(BAD[name])
    except (ValueError, RecursionError):
        before = None
    if isinstance(before, dict) and "original" not in now:
        assert {k: v for k, v in now.items() if k not in ("status", "message", "updated_at")} == {
            k: v for k, v in before.items() if k != "status"
        }
    else:
        assert loop.store.read(now["original"]) == BAD[name]
    assert runs(loop) == []
    assert [e.details["file"] for e in loop.ledger.find(Event, "intent") if e.what == "trigger refused"] == [FIXED]


def test_half_a_file_that_is_whole_a_moment_later_counts(loop: Loop) -> None:
    triggers = Triggers(patience_s=60.0)
    loop.store.write(FIXED, b'{"reason": "new')
    triggers.look(loop)
    write(loop)
    triggers.look(loop)
    assert len(runs(loop)) == 1


def test_files_of_another_life_are_not_taken(loop: Loop, triggers: Triggers) -> None:
    """The ledger was lost, or somebody else's worker died: nothing stays `processing` for ever."""
    write(loop, "training_triggers/training_needed_done.json", status="completed", model_info={"version": "1.0.7"})
    write(loop, "training_triggers/training_needed_dead.json", status="processing")
    write(loop, "training_triggers/other.json")
    loop.store.write("training_triggers/notes/training_needed.json", b"mine")
    for _ in range(2):
        triggers.look(loop)
    assert said(loop, "training_triggers/training_needed_done.json")["model_info"] == {"version": "1.0.7"}
    dead = said(loop, "training_triggers/training_needed_dead.json")
    assert (dead["status"], "new trigger" in dead["message"]) == ("failed", True)
    assert runs(loop) == []


def test_a_deleted_file_stops_nothing(loop: Loop, triggers: Triggers) -> None:
    write(loop)
    triggers.look(loop)
    loop.store.delete(FIXED)
    tick(loop)
    for _ in range(3):
        triggers.look(loop)
    assert loop.store.list(folder.TRIGGERS) == []
    assert runs(loop)[0].state == "succeeded"


class PowerCut(BaseException):
    """The process ends here."""


class Frail:
    """Something whose calls of some names can end the process, before or after they are made."""

    def __init__(self, inner: Any, names: tuple[str, ...], fuse: list[int]) -> None:
        self._inner, self._names, self._fuse = inner, names, fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        def call(*args: Any, **kw: Any) -> Any:
            self._burn()
            result = found(*args, **kw)
            self._burn()
            return result

        return call

    def _burn(self) -> None:
        self._fuse[0] -= 1
        if self._fuse[0] == 0:
            raise PowerCut


@pytest.mark.parametrize("own", [False, True], ids=["by file", "by the app"])
def test_killed_between_any_two_lines_it_is_asked_once_and_ends(tmp_path: Path, time: Time, own: bool) -> None:
    from dataclasses import replace

    for n in range(1, 60):
        with opened(tmp_path / str(n), time, ledger="sql") as whole:
            feed(whole, 60)
            fuse = [n]
            frail: Any = replace(
                whole,
                ledger=Frail(whole.ledger, ("remember", "add", "note"), fuse),  # type: ignore[arg-type]
                store=Frail(whole.store, ("write", "put_new"), fuse),  # type: ignore[arg-type]
            )
            write(whole) if not own else engine.ask(whole, by="trigger", why="60 new samples")
            dead = False
            try:
                for _ in range(3):
                    Triggers(patience_s=0).look(frail)
                    tick(whole, 2)
            except PowerCut:
                dead = True
            for _ in range(3):
                Triggers(patience_s=0).look(whole)
                tick(whole, 2)
            Triggers(patience_s=0).look(whole)
            assert len(runs(whole)) == 1, n
            (key,) = [key for key in whole.store.list(folder.TRIGGERS) if folder.is_trigger(key)]
            assert said(whole, key)["status"] == "completed", n
        if not dead:
            assert n > 4
            return
    pytest.fail("it never came through")


@given(data=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["reason", "force", "status", "created_at", "x"]), inner, max_size=5),
).map(lambda found: json.dumps(found).encode()))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_bytes_can_be_read(data: bytes) -> None:
    wish = wishes.read(data)
    assert wish.problem or (wish.reason and isinstance(wish.force, bool))
    if wish.raw and not wish.problem:
        answered = {**wish.raw, "status": "processing", "message": "m", "run": "r", "updated_at": "t"}
        with suppress(ValueError):
            assert wishes.read(folder.encoded(answered)).mark == wish.mark
