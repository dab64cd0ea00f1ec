"""What goes over the wire: bodies of requests and answers, checked on the way in and described in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=200)]
Id = Annotated[str, Meta(min_length=1, max_length=200)]
Figure = Annotated[float, Meta(ge=-1e15, le=1e15)]
Reason = Annotated[str, Meta(max_length=2000, description="Why; it goes into the history.")]


class Prediction(Struct, kw_only=True):
    """One input to answer. An object without `input` is taken as the input itself."""

    input: Annotated[Any, Meta(description="What the recipe of the loop answers, often an object of features.")]
    unit: Annotated[Text | None, Meta(description="User or device: the same one meets the same model.")] = None
    session: Annotated[
        Text | None,
        Meta(description="Conversation or visit: feedback may name it instead of the id; the unit if not given."),
    ] = None
    id: Annotated[Text | None, Meta(description="Id to know the prediction by; made up if it is not given.")] = None
    subject: Annotated[Text | None, Meta(description="Pseudonym of the person it is about.")] = None
    consent: Annotated[bool, Meta(description="The subject has agreed to its being stored.")] = False


class Predictions(Struct, kw_only=True):
    """Several inputs to answer at once."""

    inputs: Annotated[list[Any], Meta(min_length=1, max_length=1000)]
    unit: Text | None = None
    session: Text | None = None
    subject: Text | None = None
    consent: bool = False


class Answerer(Struct):
    """The model that answered."""

    version: int
    variant: Annotated[str, Meta(description="champion, canary, or retired (a former champion that stood in)")]


class Predicted(Struct):
    """One answer."""

    id: Annotated[str, Meta(description="Send it back with /feedback.")]
    output: Any
    model: Answerer


class ManyPredicted(Struct):
    """Answers, in the order of the inputs."""

    predictions: list[Predicted]


class Stored(Struct):
    """What became of samples. They are safe on disk."""

    accepted: Annotated[int, Meta(description="new")]
    duplicates: Annotated[int, Meta(description="known by their id already")]


class Joined(Struct):
    """What became of an outcome. It is safe on disk."""

    accepted: Annotated[int, Meta(description="1: it says something that was not known")]
    duplicates: Annotated[int, Meta(description="1: nothing new")]
    id: Annotated[str, Meta(description="Of the prediction or sample it was joined with.")]


class Feedback(Struct, kw_only=True, forbid_unknown_fields=True):
    """What came of an answer: what would have been right, how well it did as a figure, or both."""

    id: Annotated[Id | None, Meta(description="Of the prediction or sample it is about.")] = None
    session: Annotated[
        Id | None,
        Meta(description="Instead of the id: about its newest prediction within `collect.correction_within`."),
    ] = None
    label: Annotated[Any, Meta(description="What is right. Another one replaces the first.")] = None
    score: Annotated[
        Figure | None,
        Meta(description="How well it did: clicks, a rating, revenue; larger is better."),
    ] = None
    ago: Annotated[float, Meta(ge=0, le=1e9, description="Seconds since this was said; with a session.")] = 0.0
    weight: Annotated[float, Meta(ge=0)] = 1.0
    input: Annotated[Any, Meta(description="What was asked, where the prediction itself was not stored.")] = (
        msgspec.UNSET
    )
    subject: Text | None = None
    consent: bool = False


class Training(Struct, kw_only=True, forbid_unknown_fields=True):
    """A wish for a training."""

    force: Annotated[bool, Meta(description="Train even below `min_size`.")] = False
    why: Reason = ""
    overrides: Annotated[dict[str, Any], Meta(description="Options of the recipe for this run only.")] = {}
    file: Annotated[str | None, Meta(description="Train on this file alone; it lies in one of `collect.folders`.")] = (
        None
    )


class Asked(Struct):
    """A training that was asked for."""

    run: str
    state: str
    why: str


class Promotion(Struct, kw_only=True, forbid_unknown_fields=True):
    """A version to make champion."""

    version: Annotated[int, Meta(ge=1, le=2**53)]
    why: Reason = ""
    force: Annotated[bool, Meta(description="Even if the gate has not let it through.")] = False


class Because(Struct, kw_only=True, forbid_unknown_fields=True):
    """A reason."""

    why: Reason = ""


class ModelOut(Struct, kw_only=True):
    """One model version."""

    version: int
    id: str
    state: str
    share: float
    since: str | None
    at: str | None
    scores: dict[str, float]
    rival_scores: dict[str, float]
    verdict: dict[str, Any]
    details: dict[str, Any]
    dataset: str | None
    run: str | None


class Models(Struct):
    """Versions, newest first."""

    models: list[ModelOut]


class ModelFile(Struct, kw_only=True):
    """A form with a model that a device trained."""

    model: Annotated[
        str,
        Meta(description="The file; the ending of its name says what it is.", extra_json_schema={"format": "binary"}),
    ]
    description: Reason = ""
    subject: Annotated[Text | None, Meta(description="Pseudonym of the person whose device trained it.")] = None


class UploadOut(Struct, kw_only=True):
    """A model from a device."""

    id: str
    name: str
    format: str
    state: Annotated[str, Meta(description="pending, processing, incorporated or failed")]
    why: str
    weight: Annotated[float | None, Meta(description="Its vote in the model that it became a part of.")]
    scores: Annotated[dict[str, float], Meta(description="Means over the holdout when it came in.")]
    size: int
    sha256: str
    description: str
    at: str | None
    run: str | None
    model: str | None
    details: dict[str, Any]


class Uploads(Struct):
    """Models from devices, newest first."""

    uploads: list[UploadOut]


class Traffic(Struct):
    """What live traffic says of a version since it came into service."""

    answered: int
    failed: int
    judged: int
    right: int
    mean_latency_ms: float | None
    scored: Annotated[int, Meta(description="answers whose outcome came as a figure")]
    mean_score: float | None
    compared: Annotated[int, Meta(description="answers in the shadow compared with the one that was sent")]
    agreed: Annotated[int, Meta(description="of those, answers that decide the same")]


class InService(Struct):
    """A version in service."""

    model: ModelOut
    loaded: Annotated[bool, Meta(description="This process has it in memory.")]
    traffic: Traffic


class Rollout(Struct):
    """Who answers now."""

    steps: list[float]
    in_service: list[InService]


class History(Struct):
    """Events, newest first."""

    events: list[dict[str, Any]]
    next: Annotated[int | None, Meta(description="Send it as `before` to read on; null at the end.")]


class LoopHealth(Struct):
    """One loop, as this process serves it."""

    model_loaded: bool
    version: int | None
    training_in_progress: Annotated[bool | None, Meta(description="null when the ledger is away")]
    trouble: str | None


class Health(Struct):
    """How the server is."""

    status: Literal["ok", "degraded"]
    version: str
    loops: dict[str, LoopHealth]


class ErrorBody(Struct):
    """What went wrong."""

    code: str
    message: str
    field: Annotated[str | None, Meta(description="The member of the body, parameter or header that is wrong.")]
    hint: Annotated[str | None, Meta(description="What to do about it.")]


class Error(Struct):
    """Every error has this shape."""

    error: ErrorBody
