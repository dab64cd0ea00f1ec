"""A worker's small turns, one by one: what it takes, what it declines, what it goes on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evergreen.core.config import Use
from evergreen.core.errors import Unavailable
from evergreen.core.plugins import make
from evergreen.core.ports import Progress, Store, Ticket
from evergreen.job.far import News, Terms, Worker, protocol
from evergreen.job.far.protocol import Ack, Beat, Control, Grant, Job, Keys, Machine, Offer, Paper, Result


class Trainer:
    """Trains as far as the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.progress = Progress("running", "training")
        self.ticket: Ticket | None = None
        self.asked: list[str] = []

    def start(self, ticket: Ticket) -> str:
        self.ticket = ticket
        return "h"

    def poll(self, handle: str) -> Progress:
        return self.progress

    def cancel(self, handle: str) -> None:
        self.asked.append("cancel")
        self.progress = Progress("cancelled", failure="cancelled")

    def drain(self, handle: str) -> None:
        self.asked.append("drain")

    @property
    def found(self) -> list[str]:
        """List the checkpoints it could go on from."""
        return sorted(path.name for path in (self.folder / "checkpoints" / "r1").glob("[0-9]*"))

    def save(self, step: int) -> None:
        place = self.folder / "checkpoints" / "r1" / str(step)
        place.mkdir(parents=True)
        (place / "state").write_text(str(step))


class World:
    """A folder, time, and a worker that is turned by hand."""

    def __init__(self, home: Path) -> None:
        self.home, self.now = home, 0.0
        self.store: Store = make("stores", Use(use="local"), home=home, state=home / "state")
        self.trainers: list[Trainer] = []
        self.told: list[News] = []
        self.later: list[Callable[[], None]] = []
        self.slow = False
        self.worker = self.boot("b")

    def boot(self, boot: str, **terms: object) -> Worker:
        def trainer(folder: Path) -> Trainer:
            self.trainers.append(Trainer(folder))
            return self.trainers[-1]

        self.worker = Worker(
            self.store,
            trainer,
            name="w",
            boot=boot,
            machine=Machine(host="h"),
            terms=Terms(**terms),  # type: ignore[arg-type]
            scratch=self.home / "scratch",
            clock=lambda: self.now,
            spawn=lambda work: self.later.append(work) if self.slow else work(),
            nonce=lambda: "n",
            tell=self.told.append,
            able=lambda _: "",
        )
        return self.worker

    def turn(self, seconds: float = 30.0) -> None:
        """Let the worker act for a while."""
        until = self.now + seconds
        while self.now < until and (pause := self.worker.step()) is not None:
            self.now += max(pause, 0.25)

    def job(self, run: str = "r1", **more: object) -> Job:
        ticket = Ticket(run, "l", 1, {"use": "x"}, "datasets/d1", f"models/l/{run}-1")
        job = Job(ticket=ticket, opening="o", created=0.0, lease_s=90.0, beat_s=10.0, poll_s=5.0, **more)  # type: ignore[arg-type]
        self.write(Keys(run).job, job)
        return job

    def grant(self, run: str = "r1", boot: str = "b", mark: str = "n1", **more: object) -> Grant:
        ticket = protocol.marked(self.job(run).ticket, 1, mark)
        grant = Grant(ticket=ticket, opening="o", worker="w", boot=boot, **more)  # type: ignore[arg-type]
        self.write(Keys(run).grant(grant.mark), grant)
        return grant

    def write(self, key: str, paper: Paper) -> None:
        self.store.write(key, protocol.encode(paper))

    def result(self, mark: str = "1-n1", run: str = "r1") -> Result | None:
        return protocol.read(self.store, Keys(run).result(mark), Result)

    def checkpoint(self, step: int) -> str:
        place = self.home / f"made{step}"
        place.mkdir()
        (place / "state").write_text(str(step))
        self.store.put(Keys("r1").checkpoint("1-old", step), place)
        return Keys("r1").checkpoint("1-old", step)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_it_offers_and_takes_only_what_is_meant_for_it(world: World) -> None:
    world.job()
    world.turn()
    offer = protocol.read(world.store, Keys("r1").offer("w", "b"), Offer)
    assert offer is not None
    assert offer.counter > 3
    world.grant(boot="another", mark="n0")
    revoked = world.grant(mark="n2")
    world.write(Keys("r1").control(revoked.mark), Control(what="revoked"))
    world.turn()
    assert world.trainers == []
    grant = world.grant()
    world.turn()
    assert world.trainers[0].ticket == grant.ticket
    world.boot("b2").step()
    world.turn()
    assert len(world.trainers) == 1  # after a restart it is somebody else


def test_beats_rise_while_a_copy_takes_its_time(world: World) -> None:
    world.slow = True
    world.grant(resume=[world.checkpoint(5)])
    world.turn(60)
    beat = protocol.read(world.store, Keys("r1").beat("1-n1"), Beat)
    assert beat is not None
    assert (beat.phase, beat.counter > 4) == ("fetching a checkpoint", True)
    world.later.pop()()
    world.turn()
    assert world.trainers[0].found == ["5"]
    assert world.trainers[0].ticket is not None


@pytest.mark.parametrize(("broken", "found"), [([], ["9"]), ([9], ["5"]), ([9, 5], [])])
def test_the_best_checkpoint_that_can_be_read(world: World, broken: list[int], found: list[str]) -> None:
    keys = [world.checkpoint(step) for step in (9, 5)]
    for step in broken:
        (state,) = (world.home / "state" / "store" / "jobs").rglob(f"{step}@/*/state")
        state.write_text("damaged")
    world.grant(resume=[*keys, Keys("r1").checkpoint("1-old", 3)])
    world.turn(60)
    assert world.trainers[0].ticket is not None
    assert world.trainers[0].found == found


def test_checkpoints_are_stored_and_the_two_newest_kept(world: World) -> None:
    world.grant()
    world.turn()
    for step in (10, 20, 30):
        world.trainers[0].save(step)
        world.turn(5)
    stored = [protocol.step_of(key) for key in world.store.list(Keys("r1").checkpoints("1-n1"))]
    assert stored == [20, 30]
    world.trainers[0].save(40)
    world.trainers[0].progress = Progress("lost", error="killed")
    world.turn()
    result = world.result()
    assert result is not None
    assert (result.state, result.failure) == ("lost", "lost")
    assert Keys("r1").checkpoint("1-n1", 40) in world.store.list("jobs")


def test_what_others_give_it_while_it_is_busy_is_handed_back_at_once(world: World) -> None:
    world.job("r2")
    world.job("r1")
    world.turn()
    world.grant("r1")
    world.turn()
    world.grant("r2")
    world.turn()
    declined = world.result(run="r2")
    assert declined is not None
    assert (declined.state, declined.failure) == ("failed", "preempted")
    offer = protocol.read(world.store, Keys("r2").offer("w", "b"), Offer)
    assert offer is not None
    assert offer.leaving
    assert len(world.trainers) == 1


@pytest.mark.parametrize("word", ["cancel", "revoked", "ack", "old ack"])
def test_it_heeds_the_app(world: World, word: str) -> None:
    keys = Keys("r1")
    world.grant()
    world.turn()
    if word in ("cancel", "revoked"):
        world.write(keys.control("1-n1"), Control(what=word))  # type: ignore[arg-type]
    else:
        world.write(keys.ack, Ack(opening="o" if word == "ack" else "older", state="done"))
    world.turn()
    assert world.trainers[0].asked == ([] if word == "old ack" else ["cancel"])
    result = world.result()
    assert (result.state if result else None) == ("cancelled" if word == "cancel" else None)


def test_out_of_contact_it_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.grant()
    world.turn()
    with monkeypatch.context() as away:
        for name in ("read", "write", "list"):
            away.setattr(type(world.store), name, lambda *_: (_ for _ in ()).throw(Unavailable("no network")))
        world.turn(600)
        world.trainers[0].progress = Progress("done", details={"n": 1, "stored": {}})
        world.turn(600)
        assert world.trainers[0].asked == []
    assert any(news.kind == "trouble" for news in world.told)
    world.turn(120)
    result = world.result()
    assert result is not None
    assert (result.state, result.details, result.artifact) == ("done", {"n": 1}, "models/l/r1-1-n1")


def test_before_the_session_ends_it_hands_over(world: World) -> None:
    world.boot("b", session_s=1000.0)
    world.grant()
    world.turn(850)
    assert world.trainers[0].asked == []
    world.turn(60)
    assert world.trainers[0].asked == ["drain"]
    world.turn(200)
    assert world.trainers[0].asked == ["drain", "cancel"]
    result = world.result()
    assert result is not None
    assert (result.failure, result.error) == ("preempted", "The worker had to go.")
    assert world.now < 1000
