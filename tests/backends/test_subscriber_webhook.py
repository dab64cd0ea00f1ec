"""Webhooks: signed so that strangers' libraries can tell, no further than the host they were meant for."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from pathlib import Path
from typing import Any

import pytest

from evergreen.backends.subscriber.webhook import WebhookOptions, WebhookSubscriber
from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, EvergreenError, Refused, Unavailable
from evergreen.core.ports import Ledger
from evergreen.core.records import Event, Model
from evergreen.core.states import ModelState
from webhook_receiver import Receiver

WHO = {"by": "rollout", "because": "better by 3 points"}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    from datetime import UTC, datetime

    use = Use(use="memory")
    made: Ledger = plugins.make("ledgers", use, home=tmp_path, state=tmp_path, now=lambda: datetime.now(UTC))
    return made


def a_webhook(url: str, **options: Any) -> WebhookSubscriber:
    return WebhookSubscriber(WebhookOptions(url=url, **options), home=Path(), store=None)  # type: ignore[arg-type]


def happened(ledger: Ledger) -> Event:
    return ledger.note("shop", "alarm", by="observe", because="9 of the last 20 answers of v3 failed")


def genuine(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As docs/howto/watch.md shows it."""
    id, at = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(at)) > 300:
        return False
    mac = hmac.digest(secret.encode(), f"{id}.{at}.".encode() + body, "sha256")
    wanted = "v1," + base64.b64encode(mac).decode()
    return any(hmac.compare_digest(wanted, given) for given in headers["webhook-signature"].split())


def test_what_is_posted(ledger: Ledger, receiver: Receiver) -> None:
    model = Model(
        id="m", loop="shop", state=ModelState.CHAMPION, version=3, key="k", share=1.0, scores={"accuracy": 0.875}
    )
    ledger.add(model, **WHO)
    (event,) = ledger.find(Event, "shop")
    a_webhook(receiver.url, headers={"x-team": "ml"}).tell(event, ledger)
    (head, _), (said,) = receiver.posts[0], receiver.events
    assert (head["webhook-id"], head["x-team"], head["content-type"]) == (event.id, "ml", "application/json")
    assert "webhook-signature" not in head
    assert (said["id"], said["seq"], said["kind"], said["title"]) == (
        event.id,
        event.seq,
        "new champion",
        "shop: new champion v3",
    )
    assert (said["because"], said["model"]["scores"]) == ("better by 3 points", {"accuracy": 0.875})


def test_a_signature_holds_and_holds_for_nothing_else(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", "correct horse")
    a_webhook(receiver.url, secret_env="HOOK").tell(happened(ledger), ledger)
    head, body = receiver.posts[0]
    assert genuine("correct horse", head, body)
    assert not genuine("another", head, body)
    assert not genuine("correct horse", head, body + b" ")
    assert not genuine("correct horse", {**head, "webhook-id": "other"}, body)
    assert not genuine("correct horse", {**head, "webhook-timestamp": str(int(time.time()) + 1)}, body)


def test_a_secret_as_standard_webhooks_writes_it(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = os.urandom(24)
    monkeypatch.setenv("HOOK", "whsec_" + base64.b64encode(key).decode())
    a_webhook(receiver.url, secret_env="HOOK").tell(happened(ledger), ledger)
    head, body = receiver.posts[0]
    mac = hmac.new(key, f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + body, hashlib.sha256).digest()
    assert head["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"
    monkeypatch.setenv("HOOK", "whsec_?")
    with pytest.raises(ConfigError, match="base64"):
        a_webhook(receiver.url, secret_env="HOOK").tell(happened(ledger), ledger)


def test_redirects_are_followed_within_the_host_only(ledger: Ledger, receiver: Receiver) -> None:
    onward = iter([(307, {"location": "/elsewhere"}), 200])
    receiver.answer = lambda: next(onward)
    a_webhook(receiver.url).tell(happened(ledger), ledger)
    assert receiver.posts[0][1] == receiver.posts[1][1]
    for location in ("http://localhost:1/", "https://example.org/", f"http://127.0.0.1:{receiver.port + 1}/"):
        receiver.answer = lambda location=location: (308, {"location": location})
        with pytest.raises(Refused, match="not followed"):
            a_webhook(receiver.url).tell(happened(ledger), ledger)
    receiver.answer = lambda: (307, {"location": receiver.url})
    with pytest.raises(Unavailable, match="circles"):
        a_webhook(receiver.url).tell(happened(ledger), ledger)
    receiver.answer = lambda: (302, {"location": "/login"})
    with pytest.raises(Unavailable, match="302"):
        a_webhook(receiver.url).tell(happened(ledger), ledger)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]"]
)
def test_private_addresses_are_refused_if_told_so(ledger: Ledger, receiver: Receiver, host: str) -> None:
    with pytest.raises((Refused, Unavailable), match=r"private address|cannot be found"):
        a_webhook(f"http://{host}:{receiver.port}/", public_only=True).tell(happened(ledger), ledger)
    assert receiver.posts == []


def test_what_was_looked_up_is_what_is_called(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen.backends.subscriber import webhook

    looked_up: list[str] = []

    def public(url: Any) -> str:
        looked_up.append(url.host)
        return "127.0.0.1"

    monkeypatch.setattr(webhook, "_public", public)
    a_webhook(f"http://hook.example:{receiver.port}/a", public_only=True).tell(happened(ledger), ledger)
    assert looked_up == ["hook.example"]
    assert receiver.posts[0][0]["host"] == f"hook.example:{receiver.port}"


def test_no_error_shows_a_secret(ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", f"http://user:hunter22@127.0.0.1:{receiver.port}/T0/verysecretpath")
    monkeypatch.setenv("HOOK", "correct horse")
    hook = a_webhook("env:WHERE", secret_env="HOOK", headers={"authorization": "env:HOOK"})
    assert set(hook.secrets) == {"WHERE", "HOOK"}
    hook.tell(happened(ledger), ledger)
    assert receiver.posts[0][0]["authorization"]

    def hang_up() -> int:
        raise ConnectionError

    for answer in (lambda: 500, lambda: (307, {"location": "http://example.org/verysecretpath"}), hang_up):
        receiver.answer = answer  # type: ignore[assignment]
        with pytest.raises(EvergreenError) as e:
            hook.tell(happened(ledger), ledger)
        assert not any(word in str(e.value) for word in ("hunter22", "verysecret", "correct horse"))
        assert e.value.__cause__ is None
    monkeypatch.delenv("HOOK")
    with pytest.raises(ConfigError, match="HOOK"):
        hook.tell(happened(ledger), ledger)


def test_who_does_not_answer_is_not_waited_for(ledger: Ledger, receiver: Receiver) -> None:
    def sleep() -> int:
        time.sleep(0.5)
        return 200

    receiver.answer = sleep
    with pytest.raises(Unavailable, match="Timeout"):
        a_webhook(receiver.url, timeout_s=0.1).tell(happened(ledger), ledger)
