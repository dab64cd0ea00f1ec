"""Messages for people: plain words, to every URL once, and no URL ever shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, MissingExtra, Unavailable
from evergreen.core.ports import Ledger
from evergreen.core.records import Event, Model
from evergreen.core.states import ModelState
from webhook_receiver import Receiver

pytest.importorskip("apprise")
# Loading its plugins loads a module of Python that will go.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made: Ledger = plugins.make(
        "ledgers", Use(use="memory"), home=tmp_path, state=tmp_path, now=lambda: datetime.now(UTC)
    )
    return made


def people(**options: Any) -> Any:
    return plugins.make("subscribers", Use(use="apprise", **options), home=Path(), store=None)


def happened(ledger: Ledger) -> Event:
    model = Model(
        id="m", loop="shop", state=ModelState.CANARY, version=3, key="k", share=0.1, scores={"accuracy": 0.875}
    )
    stored = ledger.add(model, by="gate", because="passed")
    ledger.move(stored, ModelState.CHAMPION, by="rollout", because="better by 3 points", share=1.0)
    return ledger.find(Event, "shop")[-1]


def test_a_message_says_what_and_why(ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPRISE_URLS", f"json://127.0.0.1:{receiver.port}/")
    people().tell(happened(ledger), ledger)
    said = json.loads(receiver.posts[0][1])
    assert (said["title"], said["type"]) == ("shop: new champion v3", "success")
    lines = said["message"].splitlines()
    assert lines[:3] == ["better by 3 points", "On the holdout: accuracy 0.875.", "Share of the traffic: 100%."]
    assert lines[3].startswith("By rollout, 20")


def test_who_took_it_does_not_hear_it_again(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = f"json://127.0.0.1:{receiver.port}"
    monkeypatch.setenv("APPRISE_URLS", f"{there}/good {there}/bad")
    answers = iter([200, 500, 500, 200, 200, 200])
    receiver.answer = lambda: next(answers)
    event, mail = happened(ledger), people()
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"1 of 2 URLs did not take it: number 2 \(NotifyJSON\)"):
            mail.tell(event, ledger)
    mail.tell(event, ledger)
    assert len(receiver.posts) == 4
    mail.tell(event, ledger)  # all of them have it
    assert len(receiver.posts) == 4


def test_urls_come_from_the_environment_and_are_never_shown(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    event = happened(ledger)
    monkeypatch.delenv("APPRISE_URLS", raising=False)
    with pytest.raises(ConfigError, match="APPRISE_URLS"):
        people().tell(event, ledger)
    monkeypatch.setenv("TEAM", "json://anna:hunter22@127.0.0.1:1/verysecret")
    with pytest.raises(Unavailable) as e:
        people(urls_env="TEAM").tell(event, ledger)
    monkeypatch.setenv("TEAM", "nonsense://anna:hunter22@x")
    with pytest.raises(ConfigError, match="number 1 in TEAM") as wrong:
        people(urls_env="TEAM").tell(event, ledger)
    said = f"{e.value} {wrong.value} {caplog.text}"
    assert "hunter22" not in said
    assert "verysecret" not in said


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import evergreen.backends.subscriber.apprise as module

    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra) as e:
        people()
    assert "evergreen-ml[notify]" in (e.value.hint or "")
