"""Whether live traffic shows that a challenger is worse, or good enough, however often one looks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from math import exp, inf
from typing import Literal

from evergreen.core.config import EvidenceConfig
from evergreen.core.ports import Tally
from evergreen.core.records import Json
from evergreen.stages.rollout.betting import Hits, Wager, bet
from evergreen.stages.rollout.confidence import Difference, Sums, difference, lower, sums, told

#: Part of `alpha` that is spent on exact evidence before the burn-in is over.
EARLY = 0.1
#: Figures of each variant before harm is looked for: their spread must be known.
FIGURES = 20


@dataclass(frozen=True, slots=True)
class Watch:
    """What is kept between two looks at a challenger beside the champion."""

    began: datetime  #: when the first share of the traffic was given
    champion: str  #: id of the model it is compared with
    marks: list[tuple[Tally, Tally]]  #: champion's and challenger's tallies as each step began
    harm: Wager = field(default_factory=Wager)
    worth: Wager = field(default_factory=Wager)

    def step(self, champion: Tally, challenger: Tally) -> Watch:
        """Begin the next step."""
        return replace(self, marks=[*self.marks, (champion, challenger)])


@dataclass(frozen=True, slots=True)
class Finding:
    """What follows from the evidence so far, and why."""

    do: Literal["wait", "take back", "promote"]
    because: str
    figures: Mapping[str, Json]


def weigh(rules: EvidenceConfig, watch: Watch, champion: Tally, challenger: Tally) -> tuple[Watch, Finding]:
    """Look at the tallies as they stand now; return what to keep for the next look, and what follows.

    Worse is taken back at any time: the bet is that the challenger is worse by `harm`, against its being no worse.
    Good enough is shown by the asymptotic sequence once both have `burn_in` outcomes; before that, where outcomes are
    right or wrong, by the exact bet.

    >>> from datetime import UTC
    >>> watch = Watch(datetime(2026, 1, 1, tzinfo=UTC), "m1", [(Tally(), Tally())])
    >>> one = Tally(judged=200, right=150), Tally(judged=200, right=152)
    >>> watch, found = weigh(EvidenceConfig(), watch, *one)
    >>> found.do
    'wait'
    >>> weigh(EvidenceConfig(), watch, Tally(judged=500, right=370), Tally(judged=500, right=400))[1].do
    'promote'
    >>> weigh(EvidenceConfig(), watch, Tally(judged=500, right=370), Tally(judged=500, right=300))[1].do
    'take back'
    """
    marks = [*watch.marks, (champion, challenger)]
    steps = [
        (_part(rules, before[0], after[0]), _part(rules, before[1], after[1])) for before, after in pairwise(marks)
    ]
    ours, theirs = _total([b for _, b in steps]), _total([a for a, _ in steps])
    null = -rules.margin if rules.prove == "non_inferiority" else rules.margin
    found = difference(steps, null)
    binary = rules.metric == "accuracy"
    if binary:
        us, them = _hits(ours), _hits(theirs)
        watch = replace(
            watch,
            harm=bet(watch.harm, us, them, gap=rules.harm),
            worth=bet(watch.worth, them, us, gap=rules.harm, null=null),
        )
    harm = watch.harm.e if binary else _against(found, rules.harm, min(ours.n, theirs.n))
    bound = lower(found, rules.alpha * (1 - EARLY) if binary else rules.alpha)
    figures: dict[str, Json] = {
        "metric": rules.metric,
        "champion": {"n": theirs.n, "mean": theirs.mean},
        "challenger": {"n": ours.n, "mean": ours.mean},
        "difference": found.estimate if found.size else None,
        "at_least": None if bound == -inf else bound,
        "odds_of_harm": harm,
    }
    both = told(rules.metric, ours, theirs)
    if harm >= 1 / rules.harm_alpha:
        return watch, Finding("take back", f"it is worse: {both}; odds {_odds(harm)} to 1", figures)
    late = min(ours.n, theirs.n) >= rules.burn_in
    if late and bound > null:
        sure = f"the difference is {_much(rules, bound)} or more with {100 * (1 - rules.alpha):.3g} % certainty"
        return watch, Finding("promote", f"{_shown(rules)}: {both}; {sure}", figures)
    if binary and not late and watch.worth.e >= 1 / (rules.alpha * EARLY):
        return watch, Finding("promote", f"{_shown(rules)}: {both}; odds {_odds(watch.worth.e)} to 1", figures)
    return watch, Finding("wait", both, figures)


def _part(rules: EvidenceConfig, before: Tally, after: Tally) -> Sums:
    return sums(after, rules.metric) - sums(before, rules.metric)


def _total(parts: list[Sums]) -> Sums:
    return Sums(
        sum(p.n for p in parts),
        sum(p.total for p in parts),
        sum(p.squares for p in parts),
        all(p.binary for p in parts),
    )


def _hits(found: Sums) -> Hits:
    return Hits(int(found.n), int(found.total))


def _against(found: Difference, harm: float, n: float) -> float:
    """Return the likelihood of a difference of `-harm` over that of none (Wald's ratio, for means of many)."""
    if n < FIGURES or not 0 < found.variance < inf:
        return 1.0
    return exp(min(700.0, -(harm * found.estimate + harm**2 / 2) / found.variance))


def _shown(rules: EvidenceConfig) -> str:
    if rules.prove == "superiority":
        return "it is better" + (f" by more than {_size(rules, rules.margin)}" if rules.margin else "")
    return f"it is not worse by more than {_size(rules, rules.margin)}"


def _size(rules: EvidenceConfig, much: float) -> str:
    return f"{100 * much:.3g} points" if rules.metric == "accuracy" else f"{much:.4g}"


def _much(rules: EvidenceConfig, much: float) -> str:
    return f"{100 * much:+.1f} points" if rules.metric == "accuracy" else f"{much:+.4g}"


def _odds(e: float) -> str:
    return f"{min(e, 1e9):,.0f}"
