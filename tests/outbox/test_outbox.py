"""The postmen at work: real ledgers, a real receiver that fails and recovers, restarts, two processes, replay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import evergreen
from evergreen import outbox
from evergreen.core.errors import ConfigError, NotFound, Unavailable
from evergreen.core.ports import Ledger
from evergreen.core.records import Event
from evergreen.outbox import Outbox
from evergreen.outbox.letters import Rules
from evergreen.outbox.postman import Postman
from evergreen.project import Project
from webhook_receiver import Receiver

LOOPS = """
[loops.a]
recipe = { use = "evergreen.testing.runner:Majority" }
[loops.b]
recipe = { use = "evergreen.testing.runner:Majority" }
"""


@contextmanager
def opened(folder: Path, url: str, more: str = "") -> Iterator[Project]:
    (folder / "evergreen.toml").write_text(f'[[subscribers]]\nuse = "webhook"\nurl = "{url}"\n{more}\n{LOOPS}')
    project = evergreen.open(folder / "evergreen.toml")
    try:
        yield project
    finally:
        project.ledger.close()


@contextmanager
def telling(project: Project) -> Iterator[Outbox]:
    box = Outbox(project)
    box.start()
    try:
        yield box
    finally:
        box.stop()


def happen(ledger: Ledger, *kinds: str, loop: str = "a") -> list[str]:
    return [ledger.note(loop, kind, by="test", because=f"{kind} {n}").id for n, kind in enumerate(kinds)]


def ids(receiver: Receiver) -> list[str]:
    return [event["id"] for event in receiver.events]


def test_what_happens_is_told_in_order_and_only_what_is_wanted(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url, 'events = ["alarm"]\nloops = ["b"]') as project:
        happen(project.ledger, "alarm", loop="b")  # before anybody asked
        with telling(project):
            wanted = happen(project.ledger, "alarm", "noise", "alarm", "alarm", loop="b")
            happen(project.ledger, "alarm", loop="a")
            receiver.wait(lambda: len(receiver.posts) == 3)
            receiver.wait(lambda: not outbox.standing(project)[0].waiting)
    assert ids(receiver) == [wanted[0], wanted[2], wanted[3]]
    (standing,) = outbox.standing(project)
    assert (standing.place.told, standing.waiting, standing.place.error) == (3, 0, "")


def test_a_receiver_that_fails_is_told_again_and_nothing_is_lost(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url) as project:
        receiver.answer = lambda: 503
        with telling(project):
            wanted = happen(project.ledger, *["alarm"] * 5)
            receiver.wait(lambda: len(receiver.posts) >= 2)
            (standing,) = outbox.standing(project)
            assert standing.waiting == 5
            assert standing.oldest is not None
            assert "127.0.0.1 answered 503" in standing.place.error
            receiver.answer = lambda: 200
            receiver.wait(lambda: ids(receiver)[-1] == wanted[-1])
    assert list(dict.fromkeys(ids(receiver))) == wanted


def test_a_restart_goes_on_where_the_last_one_ended(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url) as project:
        with telling(project):
            first = happen(project.ledger, "alarm")
            receiver.wait(lambda: outbox.standing(project)[0].place.told)
        meanwhile = happen(project.ledger, "alarm", "drift")
        assert outbox.standing(project)[0].waiting == 2
        with telling(project):
            receiver.wait(lambda: len(receiver.posts) == 3)
    assert ids(receiver) == first + meanwhile


def test_only_one_process_tells(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url) as project:
        assert project.ledger.lease("tell/webhook", "elsewhere:1:1", 60)
        outbox.replay(project.ledger, "webhook", 0)
        happen(project.ledger, "alarm")
        rules = Rules("webhook")
        one = Postman(project.ledger, project.subscribers["webhook"], rules, me="here:1:1")
        assert not one.mine()
        project.ledger.release("tell/webhook", "elsewhere:1:1")
        assert one.mine()
        other = Postman(project.ledger, project.subscribers["webhook"], rules, me="there:1:1")
        assert not other.mine()
        one.give_back()
        assert other.mine()


def test_a_place_that_was_set_back_meanwhile_is_heeded(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url) as project:
        wanted = happen(project.ledger, "alarm", "drift", "alarm")
        seqs = [e.seq for e in project.ledger.find(Event, "a")]
        with telling(project):
            outbox.replay(project.ledger, "webhook", seqs[1])
            receiver.wait(lambda: len(receiver.posts) == 2)
            outbox.replay(project.ledger, "webhook", 0)
            receiver.wait(lambda: len(receiver.posts) == 5)
    assert ids(receiver) == wanted[1:] + wanted


def test_replay_is_heeded_in_the_midst_of_a_message(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url) as project:
        postman = Postman(
            project.ledger,
            project.subscribers["webhook"],
            Rules("webhook"),
            me="here:1:1",
        )
        postman.step()
        wanted = happen(project.ledger, "alarm", "drift")
        postman.step()

        def answer() -> int:
            outbox.replay(project.ledger, "webhook", 0)
            return 200

        receiver.answer = answer
        postman.step()
        receiver.answer = lambda: 200
        postman.step()
        postman.step()
    assert ids(receiver) == [*wanted, *wanted]


def test_one_event_is_given_up_after_its_time_and_the_history_says_so(tmp_path: Path, receiver: Receiver) -> None:
    now = datetime.now(UTC)
    clock = [now]
    with opened(tmp_path, receiver.url) as project:
        rules = Rules("webhook", give_up=timedelta(days=3))
        postman = Postman(
            project.ledger,
            project.subscribers["webhook"],
            rules,
            me="here:1:1",
            now=lambda: clock[0],
            chance=lambda: 0.0,
        )
        postman.step()
        bad, good = happen(project.ledger, "alarm", "drift")
        receiver.answer = lambda: 500 if receiver.events[-1]["id"] == bad else 200
        assert postman.step() == 0
        assert 0 < postman.step() <= 0.5  # it waits
        clock[0] += timedelta(days=3)
        postman._next = 0.0
        postman.step()
        postman.step()
        assert ids(receiver) == [bad, bad, good]
        assert postman.given_up == 1
        told = project.ledger.find(Event, "a")[-1]
        assert (told.what, told.details["event"]) == ("not told", bad)
        assert "did not take event" in told.because
        while outbox.standing(project)[0].place.seq < told.seq:
            postman.step()
        assert len(receiver.posts) == 3  # it is not told that it was not told


def test_a_burst_is_told_as_two_messages(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url, 'collapse = "2s"') as project, telling(project):
        happen(project.ledger, *["alarm"] * 43)
        receiver.wait(lambda: len(receiver.posts) == 2)
    assert receiver.events[1]["details"] == {"more": 41}
    assert receiver.events[1]["because"].endswith("(and 41 more)")


def test_a_test_goes_out_and_who_is_not_there_is_named(tmp_path: Path, receiver: Receiver) -> None:
    with opened(tmp_path, receiver.url) as project:
        outbox.trial(project, "webhook", by="anna")
        with pytest.raises(NotFound, match="mail"):
            outbox.trial(project, "mail", by="anna")
        receiver.answer = lambda: 404
        with pytest.raises(Unavailable, match="404"):
            outbox.trial(project, "webhook", by="anna")
    assert receiver.events[0]["kind"] == "test"
    assert outbox.standing(project)[0].place.told == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[subscribers]]\nuse = "webhook"\nurl = "ftp://x"\n', "https"),
        (
            '[[subscribers]]\nuse = "webhook"\nurl = "https://x"\nsecret = "x"\n',
            "no such key",
        ),
        (
            '[[subscribers]]\nuse = "webhook"\nurl = "https://x"\nloops = ["c"]\n',
            'no loop "c"',
        ),
        ('[[subscribers]]\nuse = "webhook"\nurl = "https://x"\n' * 2, "called"),
        (
            '[[subscribers]]\nuse = "apprise"\nurls_env = "mailto://a:b@c"\n',
            "name of a variable",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "evergreen.toml").write_text(text + LOOPS)
    with pytest.raises(ConfigError, match=says):
        evergreen.open(tmp_path / "evergreen.toml")
