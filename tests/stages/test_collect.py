"""What comes in: consent, sides, ids, files given for one training, and alarms about the champion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evergreen import engine
from evergreen.core.errors import InvalidInput, NoConsent
from evergreen.core.loop import Loop
from evergreen.core.ports import Incoming, Pulled, Tally
from evergreen.core.records import Event, Model, Run
from evergreen.core.states import ModelState
from evergreen.stages import collect, observe
from evergreen.stages.collect.ingest import BATCH, BATCHES

Open = Callable[..., Loop]


class Rows:
    """A source with so many rows."""

    origin = "rows"

    def __init__(self, n: int, consent: bool = False) -> None:
        self.n, self.consent = n, consent

    def pull(self, cursor: str | None, limit: int) -> Pulled:
        at = int(cursor or 0)
        rows = [
            Incoming(f"r{i}", {"input": {"i": i}, "label": "a"}, subject=f"p{i}", consent=self.consent and i % 2 == 0)
            for i in range(at, min(self.n, at + limit))
        ]
        return Pulled(rows, (), str(at + len(rows)), more=at + len(rows) < self.n)


def test_without_consent_nothing_is_stored(open_loop: Open) -> None:
    loop = open_loop(consent="true")
    row = {"input": {}, "label": "a"}
    for said in ({}, {"consent": False}, {"consent": "true"}, {"consent": 1}):
        with pytest.raises(NoConsent):
            collect.admit(loop, {**row, **said}, origin="api")
    assert collect.admit(loop, {**row, "consent": True, "subject": 7}, origin="api").subject == "7"


def test_rows_of_a_source_without_consent_go_to_quarantine(open_loop: Open) -> None:
    loop = open_loop(consent="true")
    done = collect.pull_from(loop, Rows(10, consent=True))
    assert (done.new, done.rejected, done.more) == (5, 5, False)
    assert {r.reason for r in loop.ledger.rejects("l")} == {"the row does not say that its subject has agreed"}


@pytest.mark.parametrize("id", ["", "x" * 201, 7, ["a"]])
def test_an_id_is_a_text(loop: Loop, id: Any) -> None:
    with pytest.raises(InvalidInput, match="id is not a text"):
        collect.admit(loop, {"input": {}, "id": id}, origin="api")
    with pytest.raises(InvalidInput):
        collect.admit(loop, "no object", origin="api")  # type: ignore[arg-type]


def test_the_side_is_the_group_s_and_never_another(open_loop: Open) -> None:
    loop = open_loop(dataset="holdout = 0.3")
    rows = [{"input": {"i": i}, "label": "a", "group": f"g{i % 200}"} for i in range(1000)]
    samples = [collect.admit(loop, row, origin="api") for row in rows]
    sides = {(s.group, s.side) for s in samples}
    assert len(sides) == 200
    assert 0.2 < sum(side == "holdout" for _, side in sides) / 200 < 0.4
    by_time = open_loop(dataset='split = "time"')
    assert collect.admit(by_time, rows[0], origin="api").side == ""


def test_a_long_backlog_is_taken_in_over_several_ticks(loop: Loop) -> None:
    n = BATCH * BATCHES + 5
    source = Rows(n)
    first = collect.pull_from(loop, source)
    assert (first.new, first.more) == (BATCH * BATCHES, True)
    assert collect.pull_from(loop, source).new == 5
    assert collect.pull_from(loop, source) == collect.ingest.Pull()
    assert loop.ledger.counts("l").usable == n


def test_a_file_read_as_a_source_and_given_for_a_training_counts_once(open_loop: Open, tmp_path: Path) -> None:
    loop = open_loop(sources='sources = [{ use = "jsonl", path = "data/log.jsonl" }]', trigger="auto = false")
    file = tmp_path / "data/log.jsonl"
    file.parent.mkdir()
    file.write_text("".join(f'{{"input": {{"i": {i}}}, "label": "a"}}\n' for i in range(40)))
    engine.tick(loop)
    engine.ask(loop, by="ann", why="to see", file=file)
    engine.tick(loop)
    (run,) = loop.ledger.find(Run, "l")
    assert (run.state, loop.ledger.counts("l").usable) == ("succeeded", 40)


def test_a_copy_of_what_is_known_trains_on_all_samples(open_loop: Open, tmp_path: Path) -> None:
    loop = open_loop(sources='sources = [{ use = "jsonl", path = "data/log.jsonl" }]', trigger="auto = false")
    file = tmp_path / "data/log.jsonl"
    file.parent.mkdir()
    file.write_text("".join(f'{{"input": {{"i": {i}}}, "label": "a"}}\n' for i in range(40)))
    engine.tick(loop)
    copy = tmp_path / "data/copy.jsonl"
    copy.write_text(file.read_text())
    engine.ask(loop, by="ann", why="to see", file=copy)
    engine.tick(loop)
    (run,) = loop.ledger.find(Run, "l")
    assert (run.state, run.origin, loop.ledger.counts("l").usable) == ("succeeded", None, 40)
    assert [e.because for e in loop.ledger.find(Event, "l") if e.what == "file known"] == [
        "all 40 rows of copy.jsonl are known already: training on all samples"
    ]


def test_whose_a_row_is_and_what_it_is_called_is_not_learnt_from(open_loop: Open, tmp_path: Path) -> None:
    loop = open_loop(recipe='tabular", target = "label', consent="true")
    row = '{"id": "order-1", "subject": "ann", "consent": true, "total": 3.5, "label": "kept"}\n'
    (tmp_path / "rows.jsonl").write_text(row)
    assert collect.pull_from(loop, loop.open_file(tmp_path / "rows.jsonl")).new == 1
    assert [(s.input, s.subject) for s in loop.ledger.samples("l")] == [({"total": 3.5}, "ann")]


def alarms(loop: Loop) -> list[str]:
    return [e.what for e in loop.ledger.find(Event, "l") if e.by == "observe"]


def test_an_alarm_is_raised_once_and_so_is_the_all_clear(loop: Loop) -> None:
    observe.watch(loop)  # nobody to look after
    champion = Model(id="m", loop="l", state=ModelState.CHAMPION, version=1, key="models/m")
    loop.ledger.add(champion, by="test", because="")
    for tally in (
        Tally(19),
        Tally(30, 1),
        Tally(0, 19),
        Tally(0, 30),
        Tally(0, 30),
        Tally(0, 3),
        Tally(60),
        Tally(60),
        Tally(60),
    ):
        loop.ledger.append("l", (), traffic={"m": tally})
        observe.watch(loop)
    assert alarms(loop) == ["alarm", "all clear"]


def test_an_alarm_ends_with_the_champion_it_was_about(loop: Loop) -> None:
    first = Model(id="m", loop="l", state=ModelState.CHAMPION, version=1, key="models/m")
    first = loop.ledger.add(first, by="test", because="")
    loop.ledger.append("l", (), traffic={"m": Tally(10, 15)})
    observe.watch(loop)
    (alarm,) = observe.status(loop)["alarms"]
    assert (alarm["kind"], alarm["because"]) == ("failures", "v1 could not answer 15 of the last 25 inputs")
    loop.ledger.move(first, ModelState.ROLLED_BACK, by="rollout", because="")
    loop.ledger.add(
        Model(id="n", loop="l", state=ModelState.CHAMPION, version=2, key="models/n"), by="test", because=""
    )
    observe.watch(loop)
    assert alarms(loop) == ["alarm", "all clear"]
    assert observe.status(loop)["alarms"] == []


def test_one_failure_in_fifty_is_no_alarm(loop: Loop) -> None:
    champion = Model(id="m", loop="l", state=ModelState.CHAMPION, version=1, key="models/m")
    loop.ledger.add(champion, by="test", because="")
    for _ in range(40):
        loop.ledger.append("l", (), traffic={"m": Tally(49, 1)})
        observe.watch(loop)
    assert alarms(loop) == []


def test_history_goes_back_page_by_page(loop: Loop) -> None:
    for n in range(25):
        loop.ledger.note("l", f"n{n}", by="test", because="")
        loop.ledger.note("other", "not ours", by="test", because="")
    seen: list[str] = []
    before = None
    while page := observe.history(loop, limit=4, before=before):
        seen += [e["what"] for e in page]
        before = page[-1]["seq"]
    assert seen == [f"n{n}" for n in reversed(range(25))]
