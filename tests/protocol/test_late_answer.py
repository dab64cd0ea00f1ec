"""What a worker hears of its last result, and when: an app that is slow answers late, and is heard all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.core.config import Use
from evergreen.core.plugins import make
from evergreen.core.ports import Progress, Store, Ticket
from evergreen.job.far import News, Terms, Worker, protocol
from evergreen.job.far.protocol import Ack, Control, Grant, Job, Keys, Machine, Paper

KEYS = Keys("r1")
TICKET = Ticket("r1", "l", 1, {"use": "x"}, "datasets/d1", "models/l/r1-1")
LEASE_S = 90.0


class Done:
    """A training that is over as soon as it begins."""

    def start(self, ticket: Ticket) -> str:
        return ticket.run

    def poll(self, _: str) -> Progress:
        return Progress("done", artifact=TICKET.out)

    def cancel(self, _: str) -> None:
        raise AssertionError("nobody asked for that")

    drain = cancel


class World:
    """A folder, time, and a worker that has just delivered its result."""

    def __init__(self, home: Path, *, once: bool = False) -> None:
        self.now, self.told = 0.0, list[News]()
        self.store: Store = make("stores", Use(use="local"), home=home, state=home / "state")
        self.worker = Worker(
            self.store,
            lambda _: Done(),
            name="w",
            boot="b",
            machine=Machine(host="h"),
            terms=Terms(once=once),
            scratch=home / "scratch",
            clock=lambda: self.now,
            spawn=lambda work: work(),
            nonce=lambda: "n",
            tell=self.told.append,
            able=lambda _: "",
        )
        self.grant = Grant(ticket=protocol.marked(TICKET, 1, "n1"), opening="o", worker="w", boot="b")
        self.write(KEYS.job, Job(ticket=TICKET, opening="o", created=0.0, lease_s=LEASE_S, beat_s=10.0, poll_s=5.0))
        self.write(KEYS.grant(self.grant.mark), self.grant)
        self.turn(20.0)
        assert self.worker.done[0].state == "done"

    def write(self, key: str, paper: Paper) -> None:
        self.store.write(key, protocol.encode(paper))

    def turn(self, seconds: float) -> bool:
        """Let the worker act for a while; say whether it goes on."""
        until = self.now + seconds
        while self.now < until:
            pause = self.worker.step()
            if pause is None:
                return False
            self.now += max(pause, 0.25)
        return True

    @property
    def heard(self) -> list[str]:
        """Return what it said of the end."""
        return [news.text for news in self.told if news.text.startswith("The app ")]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("mine", [True, False])
def test_what_the_app_says_is_told_once(tmp_path: Path, late: bool, mine: bool) -> None:
    world = World(tmp_path)
    if late:
        world.turn(5 * LEASE_S)
        assert world.heard[0].startswith("The app has not answered yet")
    assert len(world.heard) == late
    world.write(KEYS.ack, Ack(opening="o", attempt=1, state="done", mark=world.grant.mark if mine else "1-other"))
    world.turn(5 * LEASE_S)
    assert world.heard[-1] == ("The app has taken the result (done)." if mine else "The app took no notice of the result (done).")  # fmt: skip
    assert len(world.heard) == 1 + late


def test_a_result_that_is_not_taken_is_told_late_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.turn(5 * LEASE_S)
    world.write(KEYS.control(world.grant.mark), Control(what="revoked", why="another attempt counts"))
    world.turn(60.0)
    assert world.heard[-1] == "The app did not take the result: another attempt counts."


def test_who_came_for_one_training_does_not_wait_for_ever(tmp_path: Path) -> None:
    world = World(tmp_path, once=True)
    assert not world.turn(5 * LEASE_S)
    assert [text[:27] for text in world.heard] == ["The app has not answered ye"]
