"""Being a worker in one call, and by the command line."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from far_hands import Hands, gone, until

from evergreen.core.errors import ConfigError
from evergreen.job.far import News, attend
from evergreen.testing.runner import ended, wait_for


@pytest.fixture
def hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hands]:
    hands = Hands(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield hands
    hands.close()


def test_one_training_and_home(hands: Hands) -> None:
    handle = hands.runner.start(hands.ticket(steps=5))
    said: list[str] = []
    (done,) = attend(str(hands.shared), once=True, poll_s=0.05, say=said.append)
    assert (done.loop, done.run, done.attempt, done.state) == ("l", "r1", 1, "done")
    assert "trained, and the model is in the folder" in str(done)
    assert hands.runner.poll(handle).state == "done"
    assert any(one.startswith("A training is there") for one in said)
    assert said[-1] == "The app has taken the result (done)."
    assert not [key for key in hands.store.list("jobs") if "/checkpoints/" in key and "leaving" in key]


def test_nobody_comes(hands: Hands) -> None:
    told: list[News] = []
    assert attend(str(hands.shared), wait_minutes=0.002, poll_s=0.05, tell=told.append) == []
    assert (told[0].kind, told[0].text) == ("waiting", "Waits for a training.")
    assert told[-1].kind == "leaving"


def test_a_machine_that_cannot_says_so(hands: Hands) -> None:
    hands.app(needs={"gpu": True, "memory_gb": 1e6})
    handle = hands.runner.start(hands.ticket())
    told: list[str] = []
    attend(str(hands.shared), wait_minutes=0.01, poll_s=0.05, say=told.append)
    assert any("this machine cannot do" in one for one in told)
    assert "one cannot" in hands.runner.poll(handle).phase


def test_a_recipe_that_is_not_here_is_left_to_others(hands: Hands) -> None:
    ticket = hands.ticket()
    handle = hands.runner.start(ticket.__class__(**{**_fields(ticket), "recipe": {"use": "nowhere:Recipe"}}))
    told: list[str] = []
    attend(str(hands.shared), wait_minutes=0.01, poll_s=0.05, say=told.append)
    assert any("nowhere" in one for one in told)
    assert hands.runner.poll(handle).state == "waiting"


def _fields(ticket: object) -> dict[str, object]:
    return {name: getattr(ticket, name) for name in ticket.__dataclass_fields__}  # type: ignore[attr-defined]


def test_only_the_loops_that_were_named(hands: Hands) -> None:
    hands.runner.start(hands.ticket())
    assert attend(str(hands.shared), wait_minutes=0.005, poll_s=0.05, loops=["other"], say=str) == []


def test_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_STORE", raising=False)
    with pytest.raises(ConfigError, match="which folder"):
        attend()
    with pytest.raises(ConfigError):
        attend("nosuch://place")


# --- By the command line --------------------------------------------------------------------------------------


def test_a_training_that_fails_is_exit_code_1(hands: Hands) -> None:
    handle = hands.runner.start(hands.ticket(steps=2, fail=True))
    worker = hands.worker("first", "--once")
    failed = wait_for(hands.runner, handle, ended, 40)
    assert (failed.failure, failed.error) == ("user_code", "ValueError: this recipe was told to fail")
    assert worker.wait(20) == 1
    assert "error: the last training failed: ValueError: this recipe was told to fail" in hands.said("first")


def test_a_wrong_address_is_exit_code_2(hands: Hands) -> None:
    hands.shared = "nosuch://place"  # type: ignore[assignment]
    assert hands.worker("first").wait(20) == 2
    assert "error:" in hands.said("first")


def test_a_second_signal_ends_at_once(hands: Hands) -> None:
    hands.runner.start(hands.ticket(steps=100000, deaf=True))
    worker = hands.worker("first")
    until(hands.checkpoints, "a checkpoint")
    worker.send_signal(signal.SIGTERM)
    until(lambda: "Told to go" in hands.said("first"), "it was heard")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 130
    until(lambda: gone(hands.trained("first")[0][0]), "its training ends, too")


def test_json_lines(hands: Hands) -> None:
    hands.worker("first", "--wait", "0.01", "--json").wait(20)
    first = json.loads(hands.said("first").splitlines()[0])
    assert first["kind"] == "waiting"
    assert set(first) == {"kind", "text", "loop", "run", "phase", "step", "total", "left_s"}
