"""The table of moves: every state can be reached and left as drawn, and nothing else is allowed."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from evergreen.core.errors import IllegalMove
from evergreen.core.states import (
    IN_SERVICE,
    MOVES,
    ON_THE_WAY,
    OPEN_RUNS,
    WAITING,
    ModelState,
    RunState,
    SampleState,
    State,
    check,
)

STAGES = {"collect", "dataset", "trigger", "run", "gate", "rollout", "serve", "observe"}
KINDS: tuple[type[SampleState] | type[RunState] | type[ModelState], ...] = (SampleState, RunState, ModelState)
#: The states a record may be born in.
BIRTH: dict[type, set[State]] = {
    SampleState: {SampleState.PENDING, SampleState.ACCEPTED},
    RunState: {RunState.REQUESTED},
    ModelState: {ModelState.CANDIDATE},
}
states = st.sampled_from([s for kind in KINDS for s in kind])


@pytest.mark.parametrize("kind", KINDS)
def test_every_state_can_be_reached(kind: type) -> None:
    seen = set(BIRTH[kind])
    mine = [(frm, to) for frm, to in MOVES if type(frm) is kind]
    while more := {to for frm, to in mine if frm in seen} - seen:
        seen |= more
    assert seen == set(kind)


def test_every_move_belongs_to_a_stage_and_stays_within_its_noun() -> None:
    for (frm, to), owner in MOVES.items():
        assert owner in STAGES
        assert type(frm) is type(to)


def test_ended_runs_and_erased_samples_stay_as_they_are() -> None:
    ended = set(RunState) - set(OPEN_RUNS)
    assert not [move for move in MOVES if move[0] in ended | {SampleState.ERASED}]


def test_every_open_run_can_be_cancelled_and_fail() -> None:
    for state in OPEN_RUNS:
        assert (state, RunState.CANCELLED) in MOVES
        assert (state, RunState.FAILED) in MOVES
    assert set(WAITING) < set(OPEN_RUNS)


def test_whatever_answers_can_be_taken_back() -> None:
    for state in IN_SERVICE:
        assert MOVES[state, ModelState.ROLLED_BACK] == "rollout"
    for state in ON_THE_WAY:
        assert (state, ModelState.CHAMPION) in MOVES


def test_only_the_gate_judges_and_only_a_rollout_puts_into_service() -> None:
    for (_, to), owner in MOVES.items():
        if not isinstance(to, ModelState):
            continue
        if to in (ModelState.PASSED, ModelState.REJECTED, ModelState.UNDECIDED):
            assert owner == "gate"
        if to in IN_SERVICE:
            assert owner == "rollout"


@given(frm=states, to=states, by=st.sampled_from(sorted(STAGES)))
def test_a_move_is_allowed_exactly_as_the_table_says(frm: State, to: State, by: str) -> None:
    if type(frm) is type(to) and MOVES.get((frm, to)) == by:
        check(frm, to, by)
    else:
        with pytest.raises(IllegalMove) as caught:
            check(frm, to, by)
        assert str(frm) in str(caught.value)
        assert caught.value.status == 409
