"""What is told next: everything wanted is told in order or stands behind a message, whatever fails and whoever dies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from evergreen.core.records import Event
from evergreen.outbox import letters
from evergreen.outbox.letters import Place, Rules

START = datetime(2026, 1, 1, tzinfo=UTC)


def an_event(seq: int, what: str = "alarm", loop: str = "l", after_s: float = 0.0, **more: object) -> Event:
    at = START + timedelta(seconds=after_s)
    return Event(
        id=f"e{seq}",
        seq=seq,
        loop=loop,
        what=what,
        subject=loop,
        by="t",
        because=what,
        at=at,
        **more,
    )  # type: ignore[arg-type]


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    told, seq, at = [], 0, 0.0
    for _ in range(draw(st.integers(0, 25))):
        seq += draw(st.integers(1, 3))
        at += draw(st.sampled_from([0.0, 1.0, 30.0, 100.0]))
        told.append(
            an_event(
                seq,
                draw(st.sampled_from(["alarm", "drift", "noise"])),
                draw(st.sampled_from("ab")),
                at,
            )
        )
    return told


@given(
    histories(),
    st.sampled_from([0.0, 60.0]),
    st.lists(st.sampled_from(["taken", "failed", "killed"]), max_size=60),
    st.integers(1, 7),
)
def test_nothing_is_lost(history: list[Event], window: float, fates: list[str], page: int) -> None:
    rules = Rules("n", frozenset({"alarm", "drift"}), collapse=timedelta(seconds=window))
    now = START + timedelta(days=1)
    known = {e.id: e for e in history}
    place, heard, left = Place(0), [], list(fates)
    for _ in range(400):
        place = msgspec.json.decode(msgspec.json.encode(place), type=Place)  # as the ledger keeps it
        events: Sequence[Event] = [e for e in history if e.seq > place.seq][:page]
        passed, letter = letters.plan(place, events, now, rules)
        if letter is None:
            place = passed
            if not events:
                break
            continue
        fate = left.pop() if left else "taken"
        if fate == "failed":
            place = letters.failed(passed, now, "no")
            continue
        held = letter.held
        heard.append((letter.event, 1) if letter.event else (known[held.last], held.n))  # type: ignore[union-attr]
        if fate == "taken":  # else it died before it could note that the message was taken
            place = letter.then
    else:
        raise AssertionError("it has no end")
    wanted = [e for e in history if rules.wants(e)]
    distinct = {event.id: n for event, n in heard}
    assert sum(distinct.values()) == len(wanted)
    if not window:
        assert list(dict.fromkeys(event.id for event, _ in heard)) == [e.id for e in wanted]
    assert (place.tries, place.held) == (0, {})


def test_a_burst_becomes_one_message_and_how_many_more() -> None:
    burst = [an_event(n, after_s=n) for n in range(1, 44)]
    rules = Rules("n", collapse=timedelta(minutes=1))
    place, first = letters.plan(Place(0), burst, START, rules)
    assert first is not None
    assert first.event == burst[0]
    place, none = letters.plan(first.then, burst[1:], START, rules)
    assert (none, place.seq) == (None, 43)
    place, none = letters.plan(place, [], START + timedelta(seconds=50), rules)
    assert none is None
    place, last = letters.plan(place, [], START + timedelta(seconds=90), rules)
    assert last is not None
    assert last.held is not None
    summary = letters.summed_up(burst[42], last.held.n)
    assert (summary.because, summary.details["more"], summary.id) == (
        "alarm (and 41 more)",
        41,
        "e43",
    )


def test_who_was_not_told_is_not_told_of_that() -> None:
    event = an_event(1, "not told", details={"subscriber": "a"})
    assert (Rules("a").wants(event), Rules("b").wants(event)) == (False, True)


def test_kinds_are_words_nouns_or_what_stands_in_the_history() -> None:
    event = Event(
        id="e",
        loop="l",
        what="moved",
        subject="model m1",
        by="rollout",
        because="",
        frm="canary",
        to="champion",
    )
    assert (event.kind, event.noun, event.about) == ("new champion", "model", "m1")
    told = [
        kinds
        for kinds in ("new champion", "moved", "model", "run", "alarm")
        if Rules("n", frozenset({kinds})).wants(event)
    ]
    assert told == ["new champion", "moved", "model"]
    assert not Rules("n", loops=frozenset({"other"})).wants(event)
    other = Event(id="e", loop="l", what="moved", subject="trial t1", by="x", because="", frm="a", to="over")
    assert other.kind == "trial over"


@given(st.integers(1, 2000), st.floats(0, 1))
def test_pauses_grow_and_have_an_end(tries: int, chance: float) -> None:
    assert 0.5 <= letters.pause(tries, chance) <= letters.LONGEST
    assert letters.pause(tries, chance) >= letters.pause(tries, 1.0) / 2
