"""Which models from devices vote with the base, and how much: decided on rows that the base had not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from evergreen.core.errors import EvergreenError, InvalidInput, PredictionFailed
from evergreen.core.recipe import Job
from evergreen.core.records import Json
from evergreen.recipes.intent import adopted, choose, voices
from evergreen.recipes.intent.options import IntentOptions
from evergreen.recipes.intent.training import Fitted

#: Rows tried on, and the longest that one model may take for them and for one of them.
_MOST = 1500
_TIME_S = 20.0
_SLOWEST_MS = 5.0
#: Steps of ensemble selection: weights are multiples of about one in as many.
_STEPS = 12
#: Gains below so many standard errors may be chance. One in 44 that does not help would pass at 2.
_SURE = 2.0
#: Votes of the base and of each other in a soft vote.
_BASE_VOTES = 2.0


@dataclass(frozen=True)
class Ensemble:
    """Who votes, and why."""

    base_weight: float
    members: Mapping[str, float]  #: id -> weight
    uploads: dict[str, Json]  #: id -> {"weight", "why"}, for all that were there
    accuracy: Mapping[str, float]  #: on the rows tried on: of the base, and of all that vote


@dataclass(frozen=True)
class _Tried:
    """The votes of the base and of those that could be tried, on rows kept back."""

    y: Any
    given: Any
    base: Any
    others: dict[str, Any]

    def right(self, votes: Any) -> Any:
        """Return for each row its weight if the vote is right, else 0; weights are 1 on average."""
        return (votes.argmax(axis=1) == self.y) * self.given


def build(options: IntentOptions, fitted: Fitted, job: Job) -> Ensemble:
    """Try every upload and decide on its weight."""
    if not job.uploads:
        return Ensemble(1.0, {}, {}, {})
    if options.ensemble == "none":
        return _nobody(job, "This loop lets no models from devices vote (ensemble = none).")
    if fitted.choice.scores is None:
        return _nobody(job, "There were too few rows to try it on.")
    tried, failed = _try(options, fitted, job)
    told: dict[str, Json] = {key: {"weight": 0.0, "why": why} for key, why in failed.items()}
    if options.ensemble == "soft_vote":
        weights = dict.fromkeys(tried.others, 1.0)
        base = _BASE_VOTES if weights else 1.0
    else:
        base, weights = _selected(tried)
    alone = float(tried.right(tried.base).mean())
    every = [tried.base, *(tried.others[key] for key in weights)]
    together = float(tried.right(voices.mixed(every, [base, *weights.values()])).mean())
    for key in tried.others:
        told[key] = _told(tried, key, weights, base)
    return Ensemble(base, weights, told, {"base": alone, "ensemble": together, "rows": float(len(tried.y))})


def _nobody(job: Job, why: str) -> Ensemble:
    return Ensemble(1.0, {}, {key: {"weight": 0.0, "why": why} for key in job.uploads}, {})


def _try(options: IntentOptions, fitted: Fitted, job: Job) -> tuple[_Tried, dict[str, str]]:
    """Let the base (by models that had not seen them) and every upload answer rows; return why some could not."""
    import numpy as np

    choice, described = fitted.choice, fitted.described
    rows = np.flatnonzero(choice.tried_on & (fitted.given > 0))
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng(job.seed).choice(rows, _MOST, replace=False))
    base = choose.probabilities(choice.setting.kind, choice.scores[rows], None, choice.temperature)
    texts = [fitted.texts[i] for i in rows.tolist()]
    votes, failed = {}, {}
    for i, (key, folder) in enumerate(sorted(job.uploads.items())):
        try:
            votes[key] = _answers(folder, texts, described.labels, options.out_of_scope_label)
        except (EvergreenError, OSError, msgspec.DecodeError) as e:
            failed[key] = f"It could not be tried: {e}."
        job.report("try uploads", i + 1, len(job.uploads), {})
    given = fitted.given[rows]
    return _Tried(fitted.y[rows], given / given.mean(), base, votes), failed


def _answers(folder: Path, texts: Sequence[str], labels: Sequence[str], outside: str) -> Any:
    """Return the votes of one upload."""
    model = adopted.foreign(folder, voices.read(folder), outside)
    try:
        if not set(model.answers) & set(labels):
            raise InvalidInput("it knows none of the intents of this loop")
        start = perf_counter()
        some = texts[:20]
        for text in some:
            model.decide([text], _TIME_S)
            if perf_counter() - start > _TIME_S:
                raise PredictionFailed("it takes too long")
        each_ms = (perf_counter() - start) * 1000 / len(some)
        if each_ms > _SLOWEST_MS:
            raise PredictionFailed(f"it takes {each_ms:.0f} ms for one answer; {_SLOWEST_MS:.0f} are allowed")
        return voices.aligned(model.decide(texts, _TIME_S)[1], model.answers, labels)
    finally:
        model.close()


def _selected(tried: _Tried) -> tuple[float, dict[str, float]]:
    """Take those in, one after the other, that make answers better beyond chance; the one that helps most comes first.

    How much one helps is measured on each half of the rows with weights chosen on the other half.
    """
    taken: list[str] = []
    before = tried.right(tried.base)
    while True:
        gains = {}
        for key in tried.others.keys() - set(taken):
            after = _crossed(tried, [*taken, key])
            gains[key] = (_sureness(after - before), after)
        best = max(sorted(gains), key=lambda key: gains[key][0], default=None)
        if best is None or gains[best][0] < _SURE:
            break
        taken.append(best)
        before = gains[best][1]
    base, *weights = _greedy([tried.base, *(tried.others[key] for key in taken)], tried.y, tried.given)
    return base, {key: weight for key, weight in zip(taken, weights, strict=True) if weight > 0}


def _sureness(gained: Any) -> float:
    """Return the mean gain in standard errors."""
    error = float(gained.std()) / len(gained) ** 0.5
    return float(gained.mean()) / error if error > 0 else 0.0


def _crossed(tried: _Tried, keys: Sequence[str]) -> Any:
    """Return which rows are right with some models, each half with weights chosen on the other."""
    import numpy as np

    votes = [tried.base, *(tried.others[key] for key in keys)]
    half = np.arange(len(tried.y)) % 2 == 0
    right = np.zeros(len(tried.y))
    for here in (half, ~half):
        weights = _greedy([vote[~here] for vote in votes], tried.y[~here], tried.given[~here])
        right[here] = tried.right(voices.mixed(votes, weights))[here]
    return right


def _greedy(votes: Sequence[Any], y: Any, given: Any) -> list[float]:
    """Return weights by ensemble selection with replacement (Caruana et al. 2004), beginning with the base.

    At each step that model gets one more vote with which most rows are right; of equals, with the best likelihood.
    The best of all steps counts.
    """
    import numpy as np

    def quality(total: Any) -> tuple[float, float]:
        own = total[np.arange(len(y)), y] / np.maximum(total.sum(axis=1), 1e-12)
        right = float(((total.argmax(axis=1) == y) * given).sum())
        return round(right, 9), float((np.log(np.maximum(own, 1e-6)) * given).sum())

    counts = [1] + [0] * (len(votes) - 1)
    total = votes[0]
    best, found = quality(total), list(counts)
    for _ in range(_STEPS):
        qualities = [quality(total + vote) for vote in votes]
        at = max(range(len(votes)), key=lambda i: qualities[i])
        counts[at] += 1
        total = total + votes[at]
        if qualities[at] > best:
            best, found = qualities[at], list(counts)
    return [count / sum(found) for count in found]


def _told(tried: _Tried, key: str, weights: Mapping[str, float], base: float) -> dict[str, Json]:
    """Say what became of one upload in a plain sentence."""
    others = [tried.base, *(tried.others[k] for k in weights if k != key)]
    votes = [base, *(w for k, w in weights.items() if k != key)]
    without = float(tried.right(voices.mixed(others, votes)).mean())
    # One that was not taken is shown with half the votes of all others.
    own = weights.get(key, sum(votes) / 2)
    with_it = float(tried.right(voices.mixed([*others, tried.others[key]], [*votes, own])).mean())
    figures = f"with it the validation accuracy {{}} {with_it:.3f} instead of {without:.3f}"
    if key in weights:
        said = "It helps" if with_it > without else "It votes, though it does not help"
        return {"weight": weights[key], "why": f"{said}: {figures.format('is')}."}
    if with_it > without:
        return {"weight": 0.0, "why": f"It may help, but that may be chance: {figures.format('would be')}."}
    if with_it == without:
        return {
            "weight": 0.0,
            "why": f"It did not help: with it the validation accuracy would be the same, {without:.3f}.",
        }
    return {"weight": 0.0, "why": f"It did not help: {figures.format('would be')}."}
