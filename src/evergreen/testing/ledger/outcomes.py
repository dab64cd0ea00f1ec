"""What every ledger promises of outcomes: found by id and by session, counted once, corrected where they stand."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from evergreen.core.errors import InvalidInput, Stale
from evergreen.core.ports import Counts, CursorMove, Ledger, Tally
from evergreen.core.records import Sample
from evergreen.testing.ledger.given import S, a_sample


def asked(id: str, **more: Any) -> Sample:
    """Return a prediction that model m gave."""
    return a_sample(id, **{"label": None, "output": "yes", "origin": "predict", "model": "m", **more})


def told(id: str, **more: Any) -> Sample:
    """Return what was learnt of that prediction."""
    default = {"label": None, "output": "yes", "origin": "feedback", "model": "m", "kind": "feedback"}
    return a_sample(f"{id}.feedback", **{**default, **more})


def recount(samples: Iterable[Sample]) -> dict[str, Tally]:
    """Count what the tallies should say: predictions answered, and what is known of them now."""
    tallies: dict[str, Tally] = {}
    for s in samples:
        if s.model is None:
            continue
        if s.kind == "feedback":
            score = s.score or 0.0
            more = Tally(
                judged=int(s.right is not None), right=int(bool(s.right)),
                scored=int(s.score is not None), score=score, score_sq=score * score,
            )  # fmt: skip
        else:
            more = Tally(answered=1)
        tallies[s.model] = tallies.get(s.model, Tally()) + more
    return tallies


class OutcomeContract:
    """Outcomes: the newest word counts, once, in the tally of the model that answered."""

    def test_a_sample_is_found_by_its_id(self, ledger: Ledger) -> None:
        ledger.append("l", [asked("p", session="s"), a_sample("q", state=S.PENDING)])
        found = ledger.sample("l", "p")
        assert found == next(ledger.samples("l", labelled=False))
        assert found is not None
        assert (found.session, found.right, found.score) == ("s", None, None)
        pending = ledger.sample("l", "q")
        assert pending is not None
        assert pending.state is S.PENDING
        assert ledger.sample("l", "r") is ledger.sample("other", "p") is None

    def test_the_newest_of_a_session(self, ledger: Ledger) -> None:
        ledger.append("l", [asked("1", session="s"), asked("2", session="s"), asked("3", session="t"), asked("4")])
        ledger.append("l", [told("2", label="no", right=False)])
        first, newest = ledger.sample("l", "1"), ledger.sample("l", "2")
        assert newest is not None
        assert newest.at is not None
        since, upto, moment = (
            newest.at - timedelta(minutes=1),
            newest.at + timedelta(minutes=1),
            timedelta(microseconds=1),
        )
        assert ledger.asked("l", "s", since=since, upto=upto) == newest
        assert ledger.asked("l", "s", since=newest.at, upto=newest.at) == newest
        assert ledger.asked("l", "s", since=since, upto=upto, but="2") == first
        assert ledger.asked("l", "s", since=newest.at + moment, upto=upto) is None
        assert first is not None
        assert first.at is not None
        assert ledger.asked("l", "s", since=since, upto=first.at - moment) is None
        assert ledger.asked("l", "u", since=since, upto=upto) is ledger.asked("x", "s", since=since, upto=upto) is None

    def test_an_outcome_counts_once(self, ledger: Ledger) -> None:
        good = told("p", label="yes", right=True)
        assert list(ledger.append("l", [asked("p"), good, good], traffic={"m": Tally(answered=1)})) == [
            True,
            True,
            False,
        ]
        assert list(ledger.append("l", [good])) == [False]
        assert ledger.tally("m") == Tally(answered=1, judged=1, right=1)
        assert ledger.counts("l") == Counts(usable=1, unlabelled=1)

    def test_a_correction_takes_the_place_of_what_was_said_first(self, ledger: Ledger) -> None:
        ledger.append(
            "l", [asked("p"), told("p", label="yes", right=True, side="train"), told("q", label="no", right=False)]
        )
        assert list(ledger.append("l", [told("p", label="no", right=False, weight=2.0)])) == [True]
        assert ledger.tally("m") == Tally(judged=2)
        labels = [(s.id, s.label, s.weight, s.side) for s in ledger.samples("l")]
        assert labels == [("p.feedback", "no", 2.0, "train"), ("q.feedback", "no", 1.0, "")]
        ledger.append(
            "l", [told("p", label="maybe", right=False), told("p", label="yes", right=True), told("p", score=1.0)]
        )
        assert ledger.tally("m") == Tally(judged=2, right=1, scored=1, score=1, score_sq=1)
        assert ledger.counts("l") == Counts(usable=2, unlabelled=1)

    def test_a_figure_and_a_label_come_in_any_order(self, ledger: Ledger) -> None:
        ledger.append("l", [told("p", score=3.0), told("q", label="yes", right=True)])
        assert ledger.counts("l") == Counts(usable=1)
        assert [s.id for s in ledger.samples("l")] == ["q.feedback"]
        ledger.append("l", [told("p", label="no", right=False), told("q", score=-2.0)])
        assert ledger.tally("m") == Tally(judged=2, right=1, scored=2, score=1.0, score_sq=13.0)
        ledger.append("l", [told("p", score=0.0)])
        assert ledger.tally("m") == Tally(judged=2, right=1, scored=2, score=-2.0, score_sq=4.0)
        found = ledger.sample("l", "p.feedback")
        assert found is not None
        assert (found.label, found.score) == ("no", 0.0)
        assert ledger.counts("l") == Counts(usable=2)

    def test_what_is_only_implied_gives_way_to_what_is_said(self, ledger: Ledger) -> None:
        implied = {"right": False, "origin": "correction"}
        ledger.append("l", [told("p", **implied), told("p", **implied), told("q", label="yes", right=True)])
        assert list(ledger.append("l", [told("q", **implied)])) == [False]
        assert ledger.tally("m") == Tally(judged=2, right=1)
        assert ledger.counts("l") == Counts(usable=1)
        ledger.append("l", [told("p", label="yes", right=True)])
        assert ledger.tally("m") == Tally(judged=2, right=2)
        assert (ledger.counts("l", origin="feedback"), ledger.counts("l", origin="correction")) == (
            Counts(usable=2),
            Counts(),
        )

    def test_an_outcome_of_no_known_model_is_joined_by_a_later_one(self, ledger: Ledger) -> None:
        ledger.append("l", [told("p", label="no", model=None, output=None)])
        assert ledger.tally("m") == Tally()
        ledger.append("l", [told("p", label="no", right=False)])
        assert ledger.tally("m") == Tally(judged=1)

    def test_what_was_erased_or_is_no_outcome_stays(self, ledger: Ledger) -> None:
        ledger.append("l", [told("p", state=S.ERASED), a_sample("q.feedback", label="yes")])
        assert (
            list(ledger.append("l", [told("p", label="no", right=False), told("q", label="no", right=False)]))
            == [False] * 2
        )
        assert list(ledger.append("l", [told("r", label="no", right=False), a_sample("r.feedback")])) == [False, True]
        assert list(ledger.append("l", [a_sample("p.feedback", label="x")])) == [False]
        assert (ledger.tally("m"), ledger.counts("l")) == (Tally(), Counts(usable=2))

    def test_outcomes_are_undone_with_the_rest(self, ledger: Ledger) -> None:
        ledger.append("l", [told("p", label="yes", right=True)])

        def half() -> None:
            with ledger.together():
                ledger.append("l", [told("p", label="no", right=False), told("q", score=1.0)])
                assert ledger.tally("m") == Tally(judged=1, scored=1, score=1.0, score_sq=1.0)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            half()
        with pytest.raises(Stale):
            ledger.append("l", [told("p", score=1.0)], cursor=CursorMove("csv", "7", "8"))
        assert (ledger.tally("m"), ledger.sample("l", "q.feedback")) == (Tally(judged=1, right=1), None)
        assert [s.label for s in ledger.samples("l")] == ["yes"]

    @pytest.mark.parametrize("score", [float("nan"), float("inf"), 1e200])
    def test_a_score_is_a_number_to_count_with(self, ledger: Ledger, score: float) -> None:
        with pytest.raises(InvalidInput, match="score"):
            ledger.append("l", [told("p", score=score)])

    def test_threads_that_judge_the_same_answers_count_each_once(self, ledger: Ledger) -> None:
        ledger.append("l", [asked(str(i)) for i in range(30)], traffic={"m": Tally(answered=30)})

        def judge(worker: int) -> None:
            for i in range(30):
                right = (i + worker) % 3 == 0
                ledger.append("l", [told(str(i), label="yes" if right else "no", right=right, score=float(worker))])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(judge, range(4)))
        assert {"m": ledger.tally("m")} == recount(ledger.samples("l", labelled=False))
        assert (ledger.tally("m").judged, ledger.tally("m").scored) == (30, 30)
