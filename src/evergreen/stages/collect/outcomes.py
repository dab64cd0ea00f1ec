"""What becomes of an answer afterwards: a label, a figure, or the same question again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from difflib import SequenceMatcher
from typing import NamedTuple

from evergreen.core.errors import InvalidInput
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Sample
from evergreen.core.states import SampleState
from evergreen.stages.collect.ingest import admit

#: From here up two texts are nearly equal: twice the characters they share, in order, by all they have.
ALIKE = 0.8


class Given(NamedTuple):
    """A prediction that was given, or a sample that something is learnt of."""

    id: str
    value: Json
    output: Json
    model: str | None  #: id of the model that answered
    subject: str | None = None
    session: str | None = None
    at: datetime | None = None  #: when it was answered, where it belongs to a session

    @classmethod
    def of(cls, sample: Sample | None) -> Given | None:
        """Read it from the ledger; None for what was turned away or forgotten."""
        if sample is None or sample.state not in (SampleState.ACCEPTED, SampleState.PENDING):
            return None
        return cls(sample.id, sample.input, sample.output, sample.model, sample.subject, sample.session, sample.at)


def outcome(
    loop: Loop,
    given: Given,
    *,
    label: Json = None,
    score: float | None = None,
    weight: float = 1.0,
    consent: bool = True,
) -> Sample:
    """Make a sample of what was learnt of an answer: what is right, how well it did, or both.

    Raises `InvalidInput` that names the field, and `NoConsent`.
    """
    row = {"input": given.value, "label": label, "weight": weight, "subject": given.subject, "consent": consent}
    sample = admit(loop, row, origin="feedback", id=given.id) if label is not None else _bare(loop, given)
    right = None if label is None or given.model is None else agrees(loop, given.output, label, sample.label)
    return _about(given, sample, right=right, score=score)


def correction(loop: Loop, given: Given) -> Sample:
    """Make a sample of an answer that was not the one that was wanted, as its being asked again implies."""
    return _about(given, replace(_bare(loop, given), origin="correction"), right=False)


def _about(given: Given, sample: Sample, *, right: bool | None, score: float | None = None) -> Sample:
    """File a sample as what came of a prediction."""
    own = f"{given.id}.feedback"
    return replace(sample, id=own, kind="feedback", output=given.output, model=given.model, right=right, score=score)


def _bare(loop: Loop, given: Given) -> Sample:
    return Sample(id=given.id, loop=loop.name, input=given.value, origin="feedback", subject=given.subject)


def agrees(loop: Loop, output: Json, *labels: Json) -> bool:
    """Say whether an answer is one of the labels, decides on it, or is an object that names it."""
    said = [output]
    if isinstance(output, Mapping) and "label" in output:
        said.append(output["label"])
    try:
        said.append(loop.recipe.decision(output))
    except (KeyError, TypeError) as e:
        if len(said) == 1:
            raise InvalidInput(f"it cannot be told what this answer decided on: {e!r}", field="label") from e
    return any(one == label for one in said for label in labels)


def alike(one: Json, other: Json) -> bool:
    """Say whether two inputs ask nearly the same: texts by their characters, anything else by being equal.

    >>> alike({"text": "Turn on the light"}, {"text": "turn on the lights!"}), alike({"text": "hello"}, {"text": "bye"})
    (True, False)
    >>> alike({"n": 1, "text": "a"}, {"n": 2, "text": "a"})
    False
    """
    if isinstance(one, str) and isinstance(other, str):
        a, b = (" ".join(text.casefold().split())[:2000] for text in (one, other))
        matcher = SequenceMatcher(None, a, b, autojunk=False)
        return a == b or (matcher.real_quick_ratio() >= ALIKE <= matcher.quick_ratio() and matcher.ratio() >= ALIKE)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(alike(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)
