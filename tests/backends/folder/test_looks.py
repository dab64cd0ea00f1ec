"""What the app does at each look into the folder: whom it gives the job, whom it waits for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from folder_kit import KEYS, LEASE_S, POLL_S, TICKET, Far

from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, Unavailable
from evergreen.core.plugins import make
from evergreen.core.ports import Ledger, Store
from evergreen.job.far.protocol import Control, Job, Machine

# --- Whom it gives the job ------------------------------------------------------------------------------------


def test_only_an_offer_that_was_seen_to_rise_is_taken(far: Far) -> None:
    far.offer(7)
    assert far.look().state == "waiting"
    far.look()
    assert "none lately" in far.look().phase
    assert far.store.list(KEYS.grants) == []
    far.offer(8, lives_s=1.0)
    far.look()
    far.offer(9, leaving=True)
    far.look()
    far.offer(10, cannot="recipe is not here")
    assert "recipe is not here" in far.look().phase
    assert far.store.list(KEYS.grants) == []
    far.offer(11)
    assert "chosen worker" in far.look().phase
    grant = far.granted()
    assert (grant.worker, grant.boot, grant.ticket.attempt) == ("w", "b", 1)
    assert grant.ticket.out == f"models/l/r1-{grant.mark}"
    assert far.read(KEYS.job, Job).ticket == TICKET


def test_an_offer_that_rose_while_the_app_was_asleep_is_not_fresh(far: Far) -> None:
    far.offer(1)
    far.look()
    far.offer(2)
    far.look(3600.0)
    assert far.store.list(KEYS.grants) == []


def test_a_machine_must_have_what_is_needed(tmp_path: Path, store: Store, ledger: Ledger) -> None:
    far = Far(tmp_path, store, ledger, needs={"gpu": True})
    far.runner.start(TICKET)
    for counter in range(4):
        far.offer(counter)
        assert far.look().state == "waiting"
    assert "it has no GPU" in far.look().phase
    for counter in range(4):
        far.offer(counter, "strong", machine=Machine(host="h", gpu="T4"))
        far.look()
    assert far.granted().worker == "strong"


def test_settings_that_cannot_work_are_refused(tmp_path: Path, store: Store, ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="too short"):
        Far(tmp_path, store, ledger, lease="20s")
    synced = make("stores", Use(use="local", synced=True), home=tmp_path, state=tmp_path / "state")
    with pytest.raises(ConfigError, match="which of two workers was first"):
        Far(tmp_path, synced, ledger, mode="direct")
    assert Far(tmp_path, synced, ledger).runner.pace.lease_s >= 1800


# --- How long it waits ----------------------------------------------------------------------------------------


def test_beats_are_shown_and_older_ones_are_not(far: Far) -> None:
    mark = far.granted().mark
    far.beat(mark, 2, phase="training", step=5, total=10, left_s=50.0)
    news = far.look()
    assert (news.state, news.phase, news.step, news.where, news.left_s) == ("running", "training", 5, "far", 50.0)
    assert news.heard_s == 0
    far.beat(mark, 1, phase="training", step=1, total=10)
    news = far.look()
    assert (news.step, news.heard_s) == (5, POLL_S)


def test_a_lone_worker_that_was_silent_may_go_on(far: Far) -> None:
    mark = far.granted().mark
    far.beat(mark, 1, phase="training")
    far.look()
    for _ in range(40):
        news = far.look()
    assert news.state == "running"
    assert "silent for 200 s" in news.phase
    far.beat(mark, 2, phase="training")
    assert far.look().phase == "training"
    assert far.read(KEYS.control(mark), Control) is None


def test_a_silent_one_is_given_up_when_another_is_there(far: Far) -> None:
    mark = far.granted().mark
    far.beat(mark, 1)
    near, best = far.checkpoint(mark, 5), far.checkpoint(mark, 10)
    for n in range(30):
        far.offer(n, "other")
        news = far.look()
    assert (news.state, news.failure) == ("lost", "lost")
    assert far.read(KEYS.control(mark), Control).what == "revoked"
    assert far.runner.start(replace(TICKET, attempt=2, out="models/l/r1-2")) == "r1-2"
    grant = far.granted(2, "other")
    assert grant.ticket.attempt == 2
    assert list(grant.resume) == [best, near]
    # The one that was given up comes back with a result; nobody reads it.
    assert far.look(handle="r1-2").state in ("waiting", "running")
    assert far.runner.poll("r1-1").state == "lost"


def test_nobody_is_waited_for_for_ever(far: Far) -> None:
    far.granted()
    news = far.look()
    while news.state in ("waiting", "running"):
        news = far.look()
    assert news.state == "lost"
    assert far.now > 10 * LEASE_S


def test_a_folder_out_of_sight_costs_nobody_the_job(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = far.granted().mark
    far.beat(mark, 1, phase="training", step=3, total=9)
    far.look()
    with monkeypatch.context() as away:
        for name in ("read", "list"):
            away.setattr(type(far.store), name, lambda *_: (_ for _ in ()).throw(Unavailable("no network")))
        for _ in range(400):
            news = far.look()
        assert (news.state, news.step) == ("running", 3)
        assert news.phase == "out of sight: no network"
    far.offer(1, "other")
    far.look()
    far.offer(2, "other")
    assert far.look().state == "running"  # the time it could not look does not count
