"""What is learnt of an answer afterwards: a later word replaces an earlier one, and the tallies follow. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evergreen.backends.ledger import as_json, counted_as
from evergreen.core.ports import Tally
from evergreen.core.records import Sample
from evergreen.core.states import SampleState

_OPEN = (SampleState.ACCEPTED, SampleState.PENDING)
_SAID = ("label", "weight", "right", "score")


def joined(known: Sample, told: Sample) -> Sample | None:
    """Return what is known once `told` was said too; None where that adds nothing.

    What names neither label nor score (it is only implied that the answer was wrong) replaces nothing.
    """
    if known.kind != "feedback" or known.state not in _OPEN or (told.label is None and told.score is None):
        return None
    after = replace(known, origin=told.origin)
    if known.model is None and told.model is not None:
        after = replace(after, model=told.model, output=told.output)
    if told.label is not None:
        after = replace(after, input=told.input, label=told.label, weight=told.weight, right=told.right)
    if told.score is not None:
        after = replace(after, score=told.score)
    return after if any(getattr(after, name) != getattr(known, name) for name in _SAID) else None


def judged(after: Sample, before: Sample | None = None) -> Tally:
    """Return what to add to the tally of the model that answered: what is known now, less what was before."""
    now, then = _judged(after), _judged(before)
    return Tally(
        judged=now.judged - then.judged,
        right=now.right - then.right,
        scored=now.scored - then.scored,
        score=now.score - then.score,
        score_sq=now.score_sq - then.score_sq,
    )


def _judged(sample: Sample | None) -> Tally:
    if sample is None or sample.kind != "feedback" or sample.model is None:
        return Tally()
    score = sample.score or 0.0
    return Tally(
        judged=int(sample.right is not None),
        right=int(sample.right is True),
        scored=int(sample.score is not None),
        score=score,
        score_sq=score * score,
    )


@dataclass(frozen=True)
class Settled:
    """What is to be stored of a batch in which there are outcomes, and what these come to."""

    told: Mapping[int, bool]  #: place of an outcome in the batch -> did it say anything new?
    store: Mapping[int, Sample]  #: place -> what is to be added, outcomes and the rest, in order
    changed: Sequence[Sample]  #: outcomes that are there, as they are known now
    counts: Counter[tuple[str, str]]  #: (origin, name in `Counts`) -> how many more of what is there
    traffic: Mapping[str, Tally]


def settle(there: Mapping[str, Sample], samples: Sequence[Sample]) -> Settled:
    """Join outcomes, in order, with what is `there` by their ids. Raises `InvalidInput` for what JSON cannot say."""
    store = {i: s for i, s in enumerate(samples) if s.kind != "feedback"}
    before = {s.id: s for s in store.values()} | dict(there)
    now, first, told = dict(before), dict[str, int](), dict[int, bool]()
    for i, sample in enumerate(samples):
        if i not in store:
            said, known = as_json(sample), now.get(sample.id)
            after = said if known is None else joined(known, said)
            told[i] = after is not None
            if after is not None:
                now[after.id] = after
                first.setdefault(after.id, i)
    counts: Counter[tuple[str, str]] = Counter()
    traffic: dict[str, Tally] = {}
    for id in first:
        for one, n in ((before[id], -1), (now[id], 1)) if id in before else ():
            if (name := counted_as(one)) is not None:
                counts[one.origin, name] += n
        model, more = now[id].model, judged(now[id], before.get(id))
        if model is not None and more != Tally():
            traffic[model] = traffic.get(model, Tally()) + more
    store |= {i: now[id] for id, i in first.items() if id not in before}
    changed = [now[id] for id in first if id in before]
    return Settled(told, dict(sorted(store.items())), changed, counts, traffic)
