"""The door around a loop: looks that hold nobody up, interactions of any shape, sides of the split, the count of it all."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from backdoor_kit import Time, opened
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.core import config, plugins
from evergreen.core.errors import ConfigError, EvergreenError, InvalidInput, Unavailable
from evergreen.core.loop import Loop
from evergreen.templates.backdoor import BackdoorDoor, DoorOptions, interactions
from evergreen.templates.backdoor.door import Rounds
from evergreen.templates.backdoor.interactions import FEW_DEVICES, Census, pseudonym

FILES = Path(__file__).parents[2] / "src/evergreen/templates/backdoor/files"


@pytest.fixture
def time() -> Time:
    return Time()


# The door


def test_the_template_is_as_the_row_says() -> None:
    raw = tomllib.loads((FILES / "evergreen.toml").read_text())
    (use,) = config.parse({"doors": raw["doors"]}).doors
    door = plugins.make("doors", use, home=FILES)
    assert isinstance(door, BackdoorDoor)
    rules = config.parse(door.settings(raw)).loops["intent"]
    assert (rules.trigger.pending_models, rules.trigger.min_new, rules.trigger.min_size) == (3, 100, 50)
    assert rules.trigger.every is not None
    assert rules.trigger.every.total_seconds() == 12 * 3600
    assert (rules.rollout.keep, rules.runner.use, rules.recipe.use) == (5, "folder", "intent")
    for use in (rules.runner, rules.recipe):
        plugins.load(f"{'runners' if use is rules.runner else 'recipes'}", use.use).Options(**use.options)


def test_a_door_without_its_loop_says_so() -> None:
    door = BackdoorDoor(DoorOptions(loop="intents"), home=FILES)
    with pytest.raises(ConfigError, match='loop "intents"'):
        door.settings({"loops": {"intent": {}}})


class Looks:
    """Looks that can be slow, fail, and are counted."""

    def __init__(self) -> None:
        self.begun = 0
        self.error: Exception | None = None
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, _: Loop) -> None:
        self.begun += 1
        if self.error is not None:
            raise self.error


def test_looks_are_apart_and_never_two_at_once(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path, time) as loop:
        now, looks = [0.0], Looks()
        rounds = Rounds(loop, looks, every_s=3.0, clock=lambda: now[0], begin=looks.waiting.append)
        rounds.turn()
        rounds.turn()
        now[0] = 60.0
        rounds.turn()
        assert len(looks.waiting) == 1  # the first is under way still
        looks.waiting.pop()()
        rounds.turn()
        assert looks.waiting == []
        now[0] = 63.0
        rounds.turn()
        assert len(looks.waiting) == 1
        looks.error = Unavailable("the folder is away")
        looks.waiting.pop()()
        with pytest.raises(Unavailable):
            rounds.turn()
        rounds.turn()  # told once
        now[0] = 70.0
        looks.error = None
        rounds.turn()
        looks.waiting.pop()()
        assert looks.begun == 3


def test_a_slow_product_is_looked_into_less_often(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path, time) as loop:

        class Slow:
            staleness_s = 600.0

        part: Any = Slow()
        now, looks = [0.0], Looks()
        rounds = Rounds(replace(loop, store=part), looks, every_s=3.0, clock=lambda: now[0], begin=lambda act: act())
        for at in (0.0, 10.0, 29.0, 31.0):
            now[0] = at
            rounds.turn()
        assert looks.begun == 2


def test_a_look_is_in_a_thread_of_its_own(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path, time) as loop:
        gate, done = Event(), Event()

        def look(_: Loop) -> None:
            assert gate.wait(30)
            done.set()

        rounds = Rounds(loop, look, every_s=1.0)
        rounds.turn()  # returns, though the look waits
        gate.set()
        assert done.wait(30)


# Interactions


def batch(n: int = 1, device: str = "d", **about: Any) -> dict[str, Any]:
    one = {"userMessage": "wake me", "detectedIntent": "alarm"}
    return {"deviceId": device, "interactions": [{"id": f"{device}-{i}", **one} for i in range(n)], **about}


def admitted(loop: Loop, said: Any, *, by_device: bool = False) -> list[Any]:
    read, sent = interactions.read(said)
    return interactions.samples(loop, read, sent, device=pseudonym(b"k", read.deviceId), first=0, by_device=by_device)


def test_few_devices_are_split_by_interaction_many_by_device(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path, time) as loop:
        few = [{sample.side for sample in admitted(loop, batch(60, f"d{n}"))} for n in range(5)]
        assert few == [{"train", "holdout"}] * 5
        many = [{s.side for s in admitted(loop, batch(60, f"d{n}"), by_device=True)} for n in range(FEW_DEVICES * 2)]
        assert all(len(sides) == 1 for sides in many)
        assert set().union(*many) == {"train", "holdout"}


def test_a_pseudonym_is_the_same_for_one_key_only() -> None:
    assert pseudonym(b"k", "device") == pseudonym(b"k", "device")
    assert len({pseudonym(b"k", "a"), pseudonym(b"k", "b"), pseudonym(b"l", "a")}) == 3
    assert "device" not in pseudonym(b"k", "device")


def test_the_census_reads_each_sample_once(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path, time) as loop:
        census = Census()
        said = batch(3)
        said["interactions"][0]["feedback"] = {"rating": 4}
        said["interactions"][1]["feedback"] = {"rating": 1, "comment": "no"}
        loop.ledger.append("intent", admitted(loop, said))
        first = census.read(loop)
        assert (first["totalInteractions"], first["uniqueDevices"], first["averageFeedbackRating"]) == (3, 1, 2.5)
        loop.ledger.append("intent", admitted(loop, batch(2, "e")))
        assert census.read(loop) == census.read(loop) == {**first, "totalInteractions": 5, "uniqueDevices": 2,
                                                          "topIntents": [{"intent": "alarm", "count": 5}]}  # fmt: skip
        assert Census().read(loop)["totalInteractions"] == 5


def test_where_consent_is_needed_it_must_be_said(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path, time) as loop:
        collect = loop.config.collect.model_copy(update={"consent": True})
        careful = replace(loop, config=loop.config.model_copy(update={"collect": collect}))
        with pytest.raises(EvergreenError) as refused:
            admitted(careful, batch())
        assert (refused.value.code, refused.value.field) == ("no_consent", "consent")
        assert len(admitted(careful, batch(consent=True))) == 1
        with pytest.raises(EvergreenError):
            admitted(loop, batch(consent=False))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "userMessage", "detectedIntent", "feedback", "rating", "comment", "timestamp", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    one=values, others=st.dictionaries(st.sampled_from(["deviceId", "interactions", "appVersion", "consent"]), values)
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_sent_is_read_or_refused_with_the_place(one: Any, others: dict[str, Any]) -> None:
    said = {**batch(), "interactions": [batch()["interactions"][0], one], **others}
    error, sent = None, []
    try:
        _, sent = interactions.read(said)
    except InvalidInput as e:
        error = e
    if error is not None and not others and isinstance(one, dict):
        assert (error.field or "").startswith("interactions[1]")
    assert error is not None or sent or not said["interactions"]
    assert all(isinstance(s.userMessage, str) and s.id for s in sent)
