"""The whole story of a training far away: its worker is lost half-way, another goes on, the app serves what comes of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from acceptance_kit import Server, serving, wait

sys.path.insert(0, str(Path(__file__).parents[1] / "protocol"))

from far_kit import HERE, Gate, Machine, lines

STEPS, EVERY = 40, 5
PROJECT = """
tick = "200ms"
[loops.story]
recipe = {{ use = "far_kit:Stepper", steps = {steps}, step_s = 0.1, every = {every}, log = "{log}", gate = "{gate}" }}
runner = {{ use = "folder", beat = "300ms", poll = "200ms", lease = "6s" }}
retries = 20
collect.consent = false
trigger.auto = false
gate.min_rows = 1
rollout = {{ steps = [1.0], hold = "0s" }}
"""


@dataclass
class Story:
    """An app, and machines that share nothing with it but a folder that each sees late."""

    place: Path
    server: Server
    url: str
    log: Path
    gate: Gate
    machines: dict[str, Machine] = field(default_factory=dict)

    def machine(self, name: str) -> Machine:
        """Let a worker come."""
        self.machines[name] = Machine(name, self.place / name, self.url, "--poll", "0.2", "--name", name)
        return self.machines[name]

    def steps_by(self, name: str) -> list[int]:
        """Return the steps that a machine has trained."""
        return [line["step"] for line in lines(self.log) if line["by"] == name]

    def models(self) -> list[dict[str, Any]]:
        """Return what the app has."""
        return list(self.server.get("/api/story/models")["models"])

    def answers(self) -> int:
        """Return the version that answers; 0 while none does."""
        answer = self.server.http.post("/api/story/predict", json={"input": {"n": 1}})
        return answer.json()["model"]["version"] if answer.status_code == 200 else 0

    def trained_by(self) -> list[str]:
        """Read in the model who trained its steps."""
        files = (self.place / "shared" / "models" / "story").rglob("steps.json")
        return [who for file in files for who in json.loads(file.read_text())]


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """A running app with samples, and nobody to train for it yet."""
    home, log, gate = tmp_path / "app", tmp_path / "steps.jsonl", Gate(tmp_path / "gate.json")
    gate.let(first=2 * EVERY + 2, second=STEPS - 2)
    home.mkdir()
    (home / "evergreen.toml").write_text(PROJECT.format(steps=STEPS, every=EVERY, log=log, gate=gate.path))
    url = f"lagging:LaggingStore://{tmp_path}/shared?lag_s=0.5&seed=7"
    with ExitStack() as stack:
        server = stack.enter_context(serving(home, EVERGREEN_STORE=url, EVERGREEN_VIEW="app", PYTHONPATH=str(HERE)))
        story = Story(tmp_path, server, url, log, gate)
        stack.callback(lambda: [machine.end() for machine in story.machines.values()])
        rows = [{"input": {"n": n}, "label": "ab"[n % 3 == 0]} for n in range(60)]
        server.post("/api/story/samples", rows)
        yield story


def half_way(story: Story) -> Machine:
    """Ask for a training and let a first machine do half of it."""
    story.server.post("/api/story/train", {"force": True, "why": "a test"})
    first = story.machine("first")
    wait(lambda: f"after step {2 * EVERY} is in the folder" in first.said(), "the first machine has saved something")
    return first


def ends_well(story: Story) -> None:
    """See that the second machine went on where the first had saved, and that the app serves what it made."""
    pid = story.server.process.pid
    wait(lambda: story.answers() == 1, "the new model answers")
    assert story.server.process.pid == pid
    assert story.server.process.poll() is None
    who = story.trained_by()
    saved = who.count("first")
    assert who == ["first"] * saved + ["second"] * (STEPS - saved)
    assert saved >= 2 * EVERY
    assert saved % EVERY == 0
    assert story.steps_by("second") == list(range(saved + 1, STEPS + 1))
    assert [(m["version"], m["state"]) for m in story.models()] == [(1, "champion")]


def test_a_worker_is_killed_and_another_goes_on_from_its_checkpoint(story: Story) -> None:
    half_way(story).kill()
    story.machine("second")
    story.gate.let()
    ends_well(story)


def test_a_worker_comes_back_as_a_zombie_and_is_refused(story: Story) -> None:
    first = half_way(story)
    first.stop()
    second = story.machine("second")
    wait(lambda: story.steps_by("second"), "another machine goes on")
    story.gate.let(second=STEPS - 2)
    first.resume()
    wait(lambda: "no longer wanted" in first.said(), "the first machine hears that it no longer counts")
    first.end()  # else the app might give it what a machine that is merely slow seems to have lost
    story.gate.let()
    ends_well(story)
    wait(lambda: "The app has taken the result" in second.said(), "the second machine hears that its model counts")
    assert "The app has taken the result" not in first.said()
