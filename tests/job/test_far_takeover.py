"""Workers are killed, told to go, out of time: what they have learnt is gone on from elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from far_hands import Hands, gone, lines, until

from evergreen.testing.runner import ended, wait_for


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path)
    yield hands
    hands.close()


def test_a_killed_worker_is_replaced_from_its_checkpoint(hands: Hands) -> None:
    first = hands.runner.start(hands.ticket())
    victim = hands.worker("first")
    until(hands.checkpoints, "a checkpoint")
    (trainer,) = hands.trained("first")
    hands.worker("second")
    victim.kill()
    lost = wait_for(hands.runner, first, ended, 60)
    assert (lost.state, lost.failure) == ("lost", "lost")
    assert "nothing was heard" in lost.error
    until(lambda: gone(trainer[0]), "the training of a dead worker ends")
    second = hands.runner.start(hands.ticket(2))
    done = wait_for(hands.runner, second, ended, 60)
    assert done.state == "done", done
    assert done.details["begin"] >= 5
    assert done.artifact.startswith("models/l/r1-2-")
    assert len(hands.trained("second")) == 1
    assert "Goes on from the checkpoint" in hands.said("second")


def test_the_app_is_restarted_while_it_trains(hands: Hands) -> None:
    handle = hands.runner.start(hands.ticket(steps=60))
    hands.worker("first", "--once")
    until(hands.checkpoints, "a checkpoint")
    hands.app()
    done = wait_for(hands.runner, handle, ended, 60)
    assert done.state == "done", done
    assert len(hands.trained("first")) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_go_hands_over(hands: Hands, how: signal.Signals) -> None:
    first = hands.runner.start(hands.ticket())
    leaver = hands.worker("first")
    until(lambda: hands.runner.poll(first).step > 2, "it trains")
    leaver.send_signal(how)
    news = wait_for(hands.runner, first, ended, 60)
    assert (news.state, news.failure) == ("failed", "preempted")
    assert leaver.wait(30) == 0
    assert "handed over" in hands.said("first")
    second = hands.runner.start(hands.ticket(2))
    hands.worker("second", "--once")
    done = wait_for(hands.runner, second, ended, 60)
    assert done.state == "done", done
    assert done.details["begin"] > 2


def test_a_recipe_that_will_not_stop_is_stopped(hands: Hands) -> None:
    """The session ends, whatever the recipe does; what was saved before is gone on from."""
    handle = hands.runner.start(hands.ticket(steps=100000, deaf=True))
    worker = hands.worker("first", "--hours", str(8 / 3600))
    news = wait_for(hands.runner, handle, ended, 60)
    assert (news.state, news.failure) == ("failed", "preempted")
    assert worker.wait(30) == 0
    assert hands.checkpoints()


def test_cancelled_while_it_trains(hands: Hands) -> None:
    handle = hands.runner.start(hands.ticket(steps=100000))
    worker = hands.worker("first", "--once", "--json")
    until(lambda: hands.runner.poll(handle).step > 2, "it trains")
    hands.runner.cancel(handle)
    assert wait_for(hands.runner, handle, ended, 60).state == "cancelled"
    assert worker.wait(30) == 0
    told = lines(hands.said("first"))
    assert told[-1]["kind"] == "done"
    assert told[-1]["state"] in ("cancelled", "stopped")
    assert {"waiting", "taken", "running", "ended"} <= {line["kind"] for line in told}
    assert gone(hands.trained("first")[0][0])


def test_workers_help_themselves_where_the_app_sleeps(hands: Hands) -> None:
    """Direct mode: the first is killed, the second takes over, the app sees it when it wakes."""
    runner = hands.app(mode="direct")
    handle = runner.start(hands.ticket(steps=120))
    victim = hands.worker("first")
    until(hands.checkpoints, "a checkpoint")
    hands.runner = None
    victim.kill()
    helper = hands.worker("second", "--once")
    until(lambda: hands.trained("second"), "somebody takes over")
    assert hands.trained("second")[0][1] >= 5
    done = wait_for(hands.app(mode="direct"), handle, ended, 60)
    assert done.state == "done", done
    assert done.artifact.startswith("models/l/r1-2-")
    assert helper.wait(30) == 0
