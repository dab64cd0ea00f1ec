"""A command that brings a worker: started when one is missing, and only then; what it says is passed on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evergreen.backends.runner.folder.wake import Waker

SAY = "import os, sys; open('began', 'a').write(os.environ['EVERGREEN_STORE'] + '\\n');"


class Time:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def waker(home: Path, clock: Time, *code: str, command: str = sys.executable) -> Waker:
    words = (command, "-c", SAY + "".join(code))
    given = {"EVERGREEN_STORE": "dropbox:///app"}
    return Waker(words, 60.0, home=home, log=home / "far" / "wake.log", environment=given, clock=clock)


def until(said: Callable[[], str], word: str) -> str:
    deadline = time.monotonic() + 30
    while word not in (words := said()):
        assert time.monotonic() < deadline, words
        time.sleep(0.05)
    return words


def began(home: Path) -> list[str]:
    file = home / "began"
    return file.read_text().splitlines() if file.exists() else []


def test_no_command_no_words(tmp_path: Path) -> None:
    assert Waker((), 60.0, home=tmp_path, log=tmp_path / "log", environment={})() == ""


def test_it_is_started_once_in_its_time_and_knows_the_folder(tmp_path: Path) -> None:
    clock = Time()
    wake = waker(tmp_path, clock, "sys.stdin.read()")
    assert "was started to bring one" in wake()
    until(wake, "ended with 0")
    clock.now += 59
    wake()
    assert began(tmp_path) == ["dropbox:///app"]
    clock.now += 2
    assert "was started" in wake()
    until(wake, "ended with 0")
    assert len(began(tmp_path)) == 2


def test_one_that_runs_is_not_started_again(tmp_path: Path) -> None:
    clock = Time()
    wake = waker(tmp_path, clock, "import time; time.sleep(2)")
    for _ in range(5):
        clock.now += 100
        assert "was started" in wake()
    clock.now = 1000.0 + 159
    until(wake, "ended with 0")
    assert len(began(tmp_path)) == 1


def test_what_it_says_when_it_fails_is_passed_on(tmp_path: Path) -> None:
    wake = waker(tmp_path, Time(), "print('first', flush=True); sys.exit('no quota for a T4')")
    assert until(wake, "ended with 1").endswith("ended with 1: no quota for a T4")


@pytest.mark.parametrize("command", ["no-such-command-anywhere", "."])
def test_one_that_cannot_be_started_is_told(tmp_path: Path, command: str) -> None:
    wake = waker(tmp_path, Time(), command=command)
    assert "cannot be started" in wake()
    assert "cannot be started" in wake()
