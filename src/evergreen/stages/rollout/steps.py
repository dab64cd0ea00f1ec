"""The next step of one model on its way, from what traffic says of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from evergreen.core.config import RolloutConfig
from evergreen.core.ports import Tally
from evergreen.core.records import Model
from evergreen.core.states import ModelState
from evergreen.stages.rollout.confidence import Difference, Sums, difference, lower
from evergreen.stages.rollout.evidence import Finding

#: Failed answers it takes before a share of failures means anything.
FEW = 3
#: Answers it takes before a mean latency means anything.
SOME = 20
#: Chance that a model is called slower than allowed which is not, however often is looked.
SLOW = 0.01


@dataclass(frozen=True)
class Step:
    """What to do with a model now."""

    do: Literal["hold", "raise", "take back"]
    share: float
    because: str


def unfit(rules: RolloutConfig, tally: Tally, champion: Tally | None = None) -> str:
    """Say why live traffic speaks against a model, or nothing. `champion`: the champion's, over the same time. Pure.

    >>> unfit(RolloutConfig(max_error_rate=0.02), Tally(answered=96, failed=4))
    '4 of 100 answers failed, more than 2 %'
    """
    asked = tally.answered + tally.failed
    if tally.failed >= FEW and tally.failed > rules.max_error_rate * asked:
        return f"{tally.failed} of {asked} answers failed, more than {100 * rules.max_error_rate:.3g} %"
    return slow(rules, tally, champion)


def slow(rules: RolloutConfig, tally: Tally, champion: Tally | None = None) -> str:
    """Say that a model is slower than allowed, where that is certain: one outlier among quick answers is not. Pure.

    >>> steady, stalled = Tally(100, latency_ms=600, latency_sq=4000), Tally(100, latency_ms=600, latency_sq=501**2)
    >>> slow(RolloutConfig(max_latency_ms=5), steady), slow(RolloutConfig(max_latency_ms=5), stalled)
    ('an answer takes 6.0 ms on average, longer than 5 ms', '')
    >>> slow(RolloutConfig(max_slowdown=1.5), steady, Tally(100, latency_ms=200, latency_sq=500))
    "an answer takes 6.0 ms on average, more than 1.5 times the champion's 2.0 ms"
    """
    mine = _times(tally)
    if mine.n < SOME:
        return ""
    alone = Difference(mine.mean, mine.n, mine.variance / mine.n)
    if rules.max_latency_ms is not None and lower(alone, SLOW) > rules.max_latency_ms:
        return f"an answer takes {mine.mean:.1f} ms on average, longer than {rules.max_latency_ms:g} ms"
    if rules.max_slowdown is None or champion is None or champion.answered < SOME:
        return ""
    allowed = _times(champion, rules.max_slowdown)
    if lower(difference([(allowed, mine)]), SLOW) <= 0:
        return ""
    theirs = champion.latency_ms / champion.answered
    return (
        f"an answer takes {mine.mean:.1f} ms on average, more than {rules.max_slowdown:g} times "
        f"the champion's {theirs:.1f} ms"
    )


def _times(tally: Tally, factor: float = 1.0) -> Sums:
    return Sums(tally.answered, factor * tally.latency_ms, factor**2 * tally.latency_sq, binary=False)


def decide(
    rules: RolloutConfig,
    model: Model,
    tally: Tally,
    now: datetime,
    *,
    alone: bool = False,
    beside: Tally | None = None,
    shown: Finding | None = None,
    began: datetime | None = None,
) -> Step:
    """Return the next step of one model. Pure. `tally`: since its last step. `alone`: no champion to protect.

    `beside` is the champion's tally over the same time; `shown` what the evidence says, with the rule "evidence";
    `began`: when the model was given its first share of the traffic.
    """
    if why := unfit(rules, tally, beside):
        return Step("take back", 0.0, why)
    if alone:
        return Step("raise", 1.0, "there was no champion")
    if shown is not None and shown.do == "take back":
        return Step("take back", 0.0, shown.because)
    if model.state is ModelState.PASSED:
        return Step("raise", rules.steps[0], "passed the gate")
    late = shown is not None and _late(rules, began, now)
    if late and rules.evidence.at_deadline == "keep" and shown is not None and shown.do != "promote":
        return Step("take back", 0.0, f"no evidence within {_brief(rules.evidence.deadline)}: {shown.because}")
    held = now - (model.since or now)
    if held < rules.hold:
        return Step("hold", model.share, f"for another {rules.hold - held}")
    if model.state is ModelState.CANARY and tally.answered < rules.min_answers:
        return Step("hold", model.share, f"{tally.answered} of {rules.min_answers} answers given")
    if shown is not None and shown.do == "promote":
        return Step("raise", 1.0, shown.because)
    if late and shown is not None:
        return Step("raise", 1.0, f"no evidence against it within {_brief(rules.evidence.deadline)}: {shown.because}")
    later = [s for s in rules.steps if s > model.share and (s < 1.0 or rules.rule == "time")]
    if not later and rules.rule == "evidence":
        return Step("hold", model.share, f"waits for evidence: {shown.because if shown else 'none yet'}")
    because = f"held for {_brief(held)}, {_traffic(tally)}"
    return Step("raise", later[0] if later else 1.0, because + (f"; so far {shown.because}" if shown else ""))


def _late(rules: RolloutConfig, began: datetime | None, now: datetime) -> bool:
    deadline = rules.evidence.deadline
    return began is not None and deadline is not None and now - began >= deadline


def _traffic(tally: Tally) -> str:
    return f"{tally.answered} answers, {tally.failed} failed" if tally.answered else "no traffic"


def _brief(much: timedelta | None) -> str:
    seconds = much.total_seconds() if much is not None else 0.0
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
