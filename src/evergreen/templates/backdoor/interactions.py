"""What phones send of their conversations: checked, stripped to what training needs, made into samples; and counted."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from evergreen.core.errors import EvergreenError, InvalidInput, NoConsent
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Sample
from evergreen.stages import collect
from evergreen.stages.collect.ingest import side_of

#: Interactions in one request.
MOST = 1000
#: Fewer devices than this would not fill both sides of a split by device; each interaction is then on a side of its own.
FEW_DEVICES = 20
#: How much training heeds an interaction: as it is, with feedback, with a good rating.
PLAIN, TOLD, GOOD = 1.0, 2.0, 3.0
_GOOD_RATING = 4

Name = Annotated[str, Meta(min_length=1, max_length=200)]


class Feedback(Struct):
    """What the user thought of an answer."""

    rating: Annotated[float, Meta(ge=0, le=5)] | None = None
    comment: str | None = None


class Interaction(Struct):
    """One exchange between a user and the app. Of the members that are not here nothing is kept."""

    id: Name
    userMessage: str
    detectedIntent: Name
    timestamp: str | float | None = None
    confidenceScore: float | None = None
    feedback: Feedback | None = None


class Batch(Struct):
    """What a phone sends."""

    deviceId: Name
    interactions: list[Any]
    appVersion: str | None = None
    modelVersion: str | None = None
    osVersion: str | None = None
    consent: bool | None = None


def read(said: Json) -> tuple[Batch, list[Interaction]]:
    """Check the shape of a request; raises `InvalidInput` that names the place, `interactions[3].userMessage` for example."""
    batch = _converted(said, Batch, "")
    if len(batch.interactions) > MOST:
        raise InvalidInput(
            f"{len(batch.interactions)} interactions are more than {MOST}; send them in parts", field="interactions"
        )
    return batch, [_converted(one, Interaction, f"interactions[{i}]") for i, one in enumerate(batch.interactions)]


def samples(
    loop: Loop, batch: Batch, interactions: Sequence[Interaction], *, device: str, first: int, by_device: bool
) -> list[Sample]:
    """Make samples, all or none; an error names the place, counted from `first`.

    Kept are the message, the intent, the rating, the versions and a pseudonym of the device; not the device's id,
    the app's answer or the comment.
    """
    if batch.consent is False:
        raise NoConsent("the user has not agreed; nothing was stored", field="consent")
    made = []
    for i, one in enumerate(interactions, first):
        row = {
            "id": one.id,
            "input": {"text": one.userMessage},
            "label": one.detectedIntent.strip(),
            "weight": weight(one.feedback),
            "group": device,
            "subject": device,
            "consent": batch.consent,
        }
        try:
            if "\0" in one.id:
                raise InvalidInput("id holds the character NUL", field="id")
            sample = collect.admit(loop, row, origin="phone")
        except EvergreenError as e:
            if e.field != "consent":
                e.field = _place(f"interactions[{i}]", _APPS_NAMES.get(e.field or "", e.field))
            raise
        side = sample.side if by_device else side_of(loop, sample.id, None)
        made.append(replace(sample, side=side, output=_output(batch, one)))
    return made


def weight(feedback: Feedback | None) -> float:
    """Say how much an interaction counts.

    >>> weight(None), weight(Feedback(rating=2)), weight(Feedback(comment="good")), weight(Feedback(rating=4))
    (1.0, 2.0, 2.0, 3.0)
    """
    if feedback is None or (feedback.rating is None and not feedback.comment):
        return PLAIN
    return GOOD if (feedback.rating or 0) >= _GOOD_RATING else TOLD


def pseudonym(key: bytes, device: str) -> str:
    """Name a device so that nobody without the key can tell which it is; the same device always has the same name."""
    return "d" + hmac.new(key, device.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:24]


class Census:
    """Counts what was collected, reading each sample once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seq = 0
        self.interactions = 0
        self._devices: set[bytes] = set()
        self._ratings, self._rated = 0.0, 0
        self._intents: Counter[str] = Counter()

    @property
    def devices(self) -> int:
        """How many devices have sent something."""
        return len(self._devices)

    def read(self, loop: Loop) -> dict[str, Json]:
        """Take in what is new and return the figures (blocking)."""
        with self._lock:
            for sample in loop.ledger.samples(loop.name, after=self._seq):
                self._seq = sample.seq
                self._count(sample)
            return {
                "totalInteractions": self.interactions,
                "uniqueDevices": self.devices,
                "averageFeedbackRating": round(self._ratings / self._rated, 2) if self._rated else None,
                "topIntents": [{"intent": name, "count": n} for name, n in self._intents.most_common(5)],
            }

    def _count(self, sample: Sample) -> None:
        self.interactions += 1
        self._intents[str(sample.label)] += 1
        if sample.subject is not None:
            self._devices.add(hashlib.blake2b(sample.subject.encode(), digest_size=8).digest())
        rating = sample.output.get("rating") if isinstance(sample.output, Mapping) else None
        if isinstance(rating, int | float):
            self._ratings += rating
            self._rated += 1


_APPS_NAMES = {"input.text": "userMessage", "text": "userMessage", "input": "userMessage", "label": "detectedIntent"}


def _output(batch: Batch, one: Interaction) -> dict[str, Json]:
    """Return what the app answered, without its words."""
    told = {
        "intent": one.detectedIntent,
        "confidence": one.confidenceScore,
        "rating": one.feedback.rating if one.feedback else None,
        "model_version": batch.modelVersion,
        "app_version": batch.appVersion,
        "os_version": batch.osVersion,
    }
    return {name: value for name, value in told.items() if value is not None}


def _converted(said: Json, shape: Any, place: str) -> Any:
    try:
        return msgspec.convert(said, shape)
    except msgspec.ValidationError as e:
        message, _, path = str(e).partition(" - at `")
        inner = path.rstrip("`").removeprefix("$").lstrip(".")
        raise InvalidInput(message, field=_place(place, inner, _missing(message)) or None) from None


def _missing(message: str) -> str:
    """Return the member that is missing, where that is what is wrong."""
    found = message.partition("missing required field `")[2]
    return found.rstrip("`")


def _place(*parts: str | None) -> str:
    return ".".join(filter(None, parts))
