"""Whatever is done to it, a ledger in SQLite says what the one in memory says."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from evergreen.backends.ledger.memory import MemoryLedger
from evergreen.backends.ledger.sql import Options, SqlLedger
from evergreen.core.errors import EvergreenError
from evergreen.core.ports import CursorMove, Ledger, Tally
from evergreen.core.recipe import PluginOptions
from evergreen.core.records import Event, Model, Reject, Run, Sample
from evergreen.core.states import ModelState, RunState, SampleState
from evergreen.testing.ledger.given import WHO, a_model, a_run

LOOPS, ORIGINS = ["l", "k"], ["", "a", "b"]


@dataclass
class Step:
    """Something done to a ledger, and how to print it."""

    told: str
    do: Callable[[Ledger], Any] = field(repr=False)

    def __call__(self, ledger: Ledger) -> Any:
        return self.do(ledger)


words = st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.text(max_size=5))
json = st.recursive(
    words, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
loops, origins = st.sampled_from(LOOPS), st.sampled_from(ORIGINS)
samples = st.builds(
    Sample,
    id=st.integers(0, 12).map(str),
    loop=st.just("l"),
    state=st.sampled_from([SampleState.ACCEPTED] * 4 + list(SampleState)),
    input=json | st.just(float("inf")),
    output=json,
    label=json,
    weight=st.sampled_from([1.0, 0.0, 0.5]),
    origin=origins,
    group=st.none() | st.text(max_size=3),
    session=st.sampled_from([None, "s", "t"]),
)
outcomes = st.builds(
    Sample,
    id=st.integers(10, 15).map(str),
    loop=st.just("l"),
    kind=st.just("feedback"),
    state=st.sampled_from([SampleState.ACCEPTED] * 4 + list(SampleState)),
    input=words,
    label=st.none() | words,
    right=st.none() | st.booleans(),
    score=st.none() | st.integers(-3, 3).map(float),
    weight=st.sampled_from([1.0, 0.5]),
    origin=origins,
    model=st.sampled_from([None, "m", "n"]),
)
rejects = st.builds(Reject, origin=origins, where=st.just("line 1"), raw=st.text(max_size=5), reason=st.just("bad"))
tallies = st.dictionaries(
    st.sampled_from("mn"), st.builds(Tally, st.integers(0, 3), judged=st.integers(0, 3)), max_size=2
)
cursors = st.none() | st.builds(
    CursorMove, origin=origins, was=st.sampled_from([None, "1", "2"]), now=st.sampled_from(["1", "2"])
)


def seq_at(ledger: Ledger, loop: str, i: int) -> int:
    """Return the seq of a loop's sample at that place: numbers differ between ledgers, order does not."""
    seqs = [s.seq for s in ledger.samples(loop, labelled=False)]
    return seqs[i % len(seqs)] if seqs else 0


@st.composite
def appends(draw: st.DrawFn) -> Step:
    loop, batch, bad, cursor, traffic = (
        draw(loops), draw(st.lists(samples | outcomes, max_size=5)), draw(st.lists(rejects, max_size=2)), draw(cursors), draw(tallies),
    )  # fmt: skip
    return Step(
        f"append {loop} {batch} {bad} {cursor} {traffic}",
        lambda ledger: list(ledger.append(loop, batch, rejects=bad, cursor=cursor, traffic=traffic)),
    )


@st.composite
def sides(draw: st.DrawFn) -> Step:
    loop, after, upto, origin = (
        draw(loops),
        draw(st.integers(0, 20)),
        draw(st.integers(0, 20)),
        draw(st.none() | origins),
    )
    return Step(
        f"take_sides {loop} {after} {upto} {origin}",
        lambda ledger: ledger.take_sides(
            loop, holdout_after=seq_at(ledger, loop, after), upto=seq_at(ledger, loop, upto), origin=origin
        ),
    )


@st.composite
def adds(draw: st.DrawFn) -> Step:
    loop, n = draw(loops), draw(st.integers(0, 5))
    record: Any = (
        a_run(str(n), draw(st.sampled_from(RunState)), loop=loop)
        if draw(st.booleans())
        else a_model(str(n), draw(st.integers(1, 4)), draw(st.sampled_from(ModelState)), loop=loop)
    )
    return Step(f"add {record}", lambda ledger: plain(ledger.add(record, **WHO)))


@st.composite
def moves(draw: st.DrawFn) -> Step:
    """Move or update a record as it is, or as it was before somebody changed it."""
    kind: Any = draw(st.sampled_from([Run, Model]))
    to = draw(st.sampled_from(list(RunState) if kind is Run else list(ModelState)))
    by = draw(st.sampled_from(["run", "gate", "rollout"]))
    id, stale = str(draw(st.integers(0, 5))), draw(st.booleans())
    changes = {"attempt": 2, "handle": "h"} if kind is Run else {"share": draw(st.sampled_from([0.1, 0.5]))}

    def step(ledger: Ledger) -> Any:
        record = ledger.get(kind, id)
        if stale:
            ledger.update(record, **changes)
        if by == "run" and kind is Model:
            return plain(ledger.update(record, details={"n": 1}))
        return plain(ledger.move(record, to, by=by, because="t", **changes))

    return Step(f"move {kind.__name__} {id} {to} {by} {changes} stale={stale}", step)


@st.composite
def remembers(draw: st.DrawFn) -> Step:
    key, value = draw(st.sampled_from("xy")), draw(st.none() | st.text(max_size=3))
    return Step(f"remember {key} {value!r}", lambda ledger: ledger.remember("scope", key, value))


@st.composite
def leases(draw: st.DrawFn) -> Step:
    name, holder = draw(st.sampled_from("xy")), draw(st.sampled_from(["a:1:1", "b:1:1"]))
    if draw(st.booleans()):
        return Step(f"release {name} {holder}", lambda ledger: ledger.release(name, holder))
    return Step(f"lease {name} {holder}", lambda ledger: ledger.lease(name, holder, 60))


class GivenUp(Exception):
    """The end of a block that is not to count."""


@st.composite
def blocks(draw: st.DrawFn, inner: st.SearchStrategy[Step]) -> Step:
    steps, fails = draw(st.lists(inner, max_size=3)), draw(st.booleans())

    def step(ledger: Ledger) -> Any:
        with ledger.together():
            said = [outcome(ledger, step) for step in steps]
            if fails:
                raise GivenUp(repr(said))
            return said

    return Step(f"together {steps} fails={fails}", step)


singles = st.one_of(appends(), appends(), sides(), adds(), moves(), moves(), remembers(), leases())
steps = st.recursive(singles, blocks, max_leaves=4)


def outcome(ledger: Ledger, step: Step) -> Any:
    """Return what a step said, or which error it raised."""
    try:
        return step(ledger)
    except (EvergreenError, GivenUp) as e:
        return type(e).__name__, str(e)


def plain(record: Any) -> Any:
    """Leave out what two ledgers may choose differently."""
    return replace(record, seq=0, id="" if isinstance(record, Event) else record.id)


def everything(ledger: Ledger) -> Iterator[Any]:
    """Ask a ledger all there is to ask."""
    for loop in LOOPS:
        for state in SampleState:
            yield [plain(s) for s in ledger.samples(loop, state=state, labelled=False)]
        yield [s.id for s in ledger.samples(loop, newest_first=True, limit=3)]
        yield [s.id for s in ledger.samples(loop, after=seq_at(ledger, loop, 1), side="train", origin="a")]
        for session in "st":
            newest = ledger.asked(loop, session, since=now(), upto=now(), but="3")
            yield newest and plain(newest)
        yield [(s := ledger.sample(loop, str(id))) and plain(s) for id in range(16)]
        yield len(ledger.unsided(loop, upto=seq_at(ledger, loop, -1)))
        yield [ledger.counts(loop, origin=origin) for origin in (None, *ORIGINS)]
        yield ledger.rejects(loop, limit=3)
        kinds: list[Any] = [Run, Model, Event]
        yield [[plain(r) for r in ledger.find(kind, loop)] for kind in kinds]
        yield [r.id for r in ledger.find(Model, loop, ModelState.CHAMPION, ModelState.CANARY, newest_first=True)]
    yield [ledger.tally(model) for model in "mn"]
    yield ledger.recall_all("scope"), ledger.recall_all("cursor")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database, to copy: to make one takes longer than all else here."""
    folder = tmp_path_factory.mktemp("empty")
    SqlLedger(Options(), home=folder, state=folder, now=now).close()
    return folder / "ledger.db"


def now() -> datetime:
    """Let time stand still."""
    return datetime(2024, 5, 1, tzinfo=UTC)


def test_both_say_the_same(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_LEDGER", raising=False)

    class Both(RuleBasedStateMachine):
        """A ledger of each kind, to which the same is done."""

        def __init__(self) -> None:
            super().__init__()
            self.folder = tempfile.TemporaryDirectory()
            here = Path(self.folder.name)
            shutil.copy(empty, here / "ledger.db")
            self.memory = MemoryLedger(PluginOptions(), home=here, state=here, now=now)
            self.sql = SqlLedger(Options(), home=here, state=here, now=now)

        @rule(step=steps)
        def do(self, step: Step) -> None:
            before = self.memory.revision(), self.sql.revision()
            assert outcome(self.memory, step) == outcome(self.sql, step)
            after = self.memory.revision(), self.sql.revision()
            assert after[0] - before[0] == after[1] - before[1]

        @invariant()
        def the_same(self) -> None:
            for one, other in zip(everything(self.memory), everything(self.sql), strict=True):
                assert one == other

        def teardown(self) -> None:
            self.sql.close()
            self.folder.cleanup()

    quick = settings(max_examples=30, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Both, settings=quick)
