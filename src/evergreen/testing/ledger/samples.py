"""What every ledger promises of samples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from evergreen.core.errors import InvalidInput, Stale
from evergreen.core.ports import Counts, CursorMove, Ledger, Tally
from evergreen.core.records import Reject, Sample
from evergreen.testing.ledger.given import S, a_sample, ids, some


class SampleContract:
    """Samples: what is appended once is there once, in order, on one side."""

    def test_a_sample_comes_back_as_it_went(self, ledger: Ledger) -> None:
        full = a_sample(
            "ü 1", kind="feedback", input={"deep": [1, 2.5, None, "grün 🌱\x00"]}, output=[], label=False, weight=0.25,
            side="train", origin="csv:log", subject="p1", group="g", model="m1",
        )  # fmt: skip
        bare = Sample(id="2", loop="l", input=None)
        assert ledger.append("l", [full, bare]) == [True, True]
        first, second = ledger.samples("l", labelled=False)
        assert first.seq < second.seq
        assert first.at is not None
        assert first.at.utcoffset() == timedelta(0)
        assert [replace(s, seq=0, at=None) for s in (first, second)] == [full, bare]

    def test_the_same_id_twice_is_one_sample(self, ledger: Ledger) -> None:
        assert list(ledger.append("l", [a_sample("a"), a_sample("b"), a_sample("a", input=2)])) == [True, True, False]
        assert list(ledger.append("l", [a_sample("b", label=None), a_sample("c")])) == [False, True]
        assert list(ledger.append("other", [a_sample("a", loop="other")])) == [True]
        assert [(s.id, s.input) for s in ledger.samples("l")] == [(i, {"x": 1}) for i in "abc"]
        assert ledger.counts("l") == Counts(usable=3)
        assert list(ledger.append("l", [])) == []

    @pytest.mark.parametrize("value", [float("nan"), {"deep": [None, float("inf")]}, object(), "\ud800"])
    @pytest.mark.parametrize("name", ["input", "output", "label"])
    def test_what_json_cannot_say_is_refused(self, ledger: Ledger, name: str, value: Any) -> None:
        with pytest.raises(InvalidInput) as e:
            ledger.append("l", [a_sample("good"), a_sample("bad", **{name: value})])
        assert e.value.field == name
        assert list(ledger.samples("l")) == []

    @pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
    def test_a_weight_is_a_number(self, ledger: Ledger, weight: float) -> None:
        with pytest.raises(InvalidInput, match="weight"):
            ledger.append("l", [a_sample("a", weight=weight)])

    def test_what_is_asked_for(self, ledger: Ledger) -> None:
        ledger.append("l", [*some(3, origin="a"), *some(3, 3, origin="b"), a_sample("u", label=None)])
        ledger.append("l", [a_sample("p", state=S.PENDING), a_sample("r", state=S.REJECTED, label=None)])
        ledger.append("other", some(2, loop="other"))
        seqs = [s.seq for s in ledger.samples("l")]
        ledger.take_sides("l", holdout_after=seqs[3], upto=seqs[4])
        assert ids(ledger.samples("l")) == ["s0", "s1", "s2", "s3", "s4", "s5"]
        assert ids(ledger.samples("l", labelled=False)) == ["s0", "s1", "s2", "s3", "s4", "s5", "u"]
        assert ids(ledger.samples("l", newest_first=True, limit=2)) == ["s5", "s4"]
        assert ids(ledger.samples("l", after=seqs[1], upto=seqs[3])) == ["s2", "s3"]
        assert ids(ledger.samples("l", after=seqs[1], upto=seqs[4], newest_first=True)) == ["s4", "s3", "s2"]
        assert ids(ledger.samples("l", origin="b", limit=1)) == ["s3"]
        assert ids(ledger.samples("l", side="train")) == ["s0", "s1", "s2", "s3"]
        assert ids(ledger.samples("l", side="holdout")) == ["s4"]
        assert ids(ledger.samples("l", side="")) == ["s5"]
        assert ids(ledger.samples("l", state=S.PENDING)) == ["p"]
        assert ids(ledger.samples("l", state=S.REJECTED)) == []
        assert ids(ledger.samples("l", state=S.REJECTED, labelled=False)) == ["r"]
        assert ids(ledger.samples("l", limit=0)) == ids(ledger.samples("nobody")) == []

    @pytest.mark.parametrize("newest_first", [False, True])
    def test_reading_goes_on_while_others_write(self, ledger: Ledger, newest_first: bool) -> None:
        ledger.append("l", some(2500))
        upto = max(s.seq for s in ledger.samples("l"))
        reading = ledger.samples("l", upto=upto, newest_first=newest_first)
        seen = [next(reading)]
        for s in reading:
            if len(seen) % 500 == 0:
                ledger.append("l", some(3, 10_000 + len(seen)))
            seen.append(s)
        there = [f"s{i}" for i in range(2500)]
        assert ids(seen) == (there[::-1] if newest_first else there)

    def test_a_side_is_taken_once(self, ledger: Ledger) -> None:
        ledger.append("l", [*some(4, origin="a"), *some(2, 4, origin="b"), a_sample("u", label=None)])
        ledger.append("l", [a_sample("p", state=S.PENDING)])
        seqs = [s.seq for s in ledger.samples("l")]
        assert list(ledger.unsided("l", upto=seqs[-1] + 10)) == seqs
        assert list(ledger.unsided("l", upto=seqs[1])) == seqs[:2]
        assert list(ledger.unsided("l", upto=seqs[-1], origin="b")) == seqs[4:]
        ledger.take_sides("l", holdout_after=seqs[1], upto=seqs[2], origin="a")
        ledger.take_sides("l", holdout_after=0, upto=seqs[-1], origin="b")
        assert list(ledger.unsided("l", upto=seqs[-1])) == [seqs[3]]
        ledger.take_sides("l", holdout_after=seqs[-1], upto=seqs[-1])
        sides = [s.side for s in ledger.samples("l", labelled=False)]
        assert sides == ["train", "train", "holdout", "train", "holdout", "holdout", ""]

    def test_counts(self, ledger: Ledger) -> None:
        assert ledger.counts("l") == Counts()
        ledger.append("l", [*some(3, origin="a"), *some(2, 3, origin="b"), a_sample("u", label=None, origin="b")])
        ledger.append(
            "l", [a_sample("p", state=S.PENDING), a_sample("r", state=S.REJECTED), a_sample("e", state=S.ERASED)]
        )
        ledger.append("l", some(4, origin="b"), rejects=[Reject(origin="b", where="line 3", raw="x,", reason="short")])
        assert ledger.counts("l") == Counts(usable=5, unlabelled=1, pending=1, rejected=1, quarantined=1)
        assert ledger.counts("l", origin="b") == Counts(usable=2, unlabelled=1, quarantined=1)
        assert ledger.counts("l", origin="c") == ledger.counts("other") == Counts()

    def test_quarantine_newest_first(self, ledger: Ledger) -> None:
        bad = [Reject(origin="csv", where=f"line {n}", raw="?", reason="empty") for n in range(5)]
        ledger.append("l", [], rejects=bad)
        found = ledger.rejects("l", limit=2)
        assert all(r.at is not None for r in found)
        assert [replace(r, at=None) for r in found] == [bad[4], bad[3]]
        assert len(ledger.rejects("l")) == 5
        assert list(ledger.rejects("other")) == []

    def test_a_cursor_moves_with_its_samples_or_not_at_all(self, ledger: Ledger) -> None:
        ledger.append("l", some(1), cursor=CursorMove("csv", None, "10"))
        assert ledger.recall("cursor", "l/csv") == "10"
        for was in (None, "9"):
            with pytest.raises(Stale):
                ledger.append(
                    "l", some(2, 5), rejects=[Reject(origin="csv", where="", raw="", reason="")],
                    cursor=CursorMove("csv", was, "20"), traffic={"m": Tally(answered=1)},
                )  # fmt: skip
        assert (ledger.recall("cursor", "l/csv"), ledger.counts("l")) == ("10", Counts(usable=1))
        assert ledger.tally("m") == Tally()
        ledger.append("l", [], cursor=CursorMove("csv", "10", "20"))
        assert ledger.recall("cursor", "l/csv") == "20"

    def test_traffic_is_summed_by_model(self, ledger: Ledger) -> None:
        assert ledger.tally("m") == Tally()
        ledger.append("l", [], traffic={"m": Tally(2, 1, 1, 0, 12.5), "n": Tally(answered=1)})
        ledger.append("l", [], traffic={"m": Tally(1, 0, 1, 1, 0.5)})
        assert ledger.tally("m") == Tally(3, 1, 2, 1, 13.0)
        assert ledger.tally("n") == Tally(answered=1)
        whole = Tally(*range(1, 12))
        ledger.append("l", [], traffic={"o": whole})
        ledger.append("l", [], traffic={"o": whole})
        assert ledger.tally("o") == whole + whole

    def test_a_unit_is_exposed_once(self, ledger: Ledger) -> None:
        """What a unit met first stays; an experiment's count is its own."""
        ledger.expose("x", {"ann": "v1", "bob": "v2", "cid": "v1"})
        ledger.expose("x", {"ann": "v2", "dan": "v2"})
        ledger.expose("x", {})
        ledger.expose("y", {"ann": "v2"})
        assert ledger.exposed("x") == {"v1": 2, "v2": 2}
        assert ledger.exposed("y") == {"v2": 1}
        assert ledger.exposed("z") == {}

    def test_threads_with_the_same_samples_store_each_once(self, ledger: Ledger) -> None:
        def send(worker: int) -> int:
            mine = some(60, worker * 20)
            return sum(sum(ledger.append("l", mine[i : i + 7])) for i in range(0, 60, 7))

        with ThreadPoolExecutor(4) as pool:
            stored = list(pool.map(send, range(4)))
        assert sum(stored) == 120
        found = list(ledger.samples("l"))
        assert sorted(ids(found)) == sorted(f"s{i}" for i in range(120))
        assert [s.seq for s in found] == sorted({s.seq for s in found})
        assert ledger.counts("l") == Counts(usable=120)
