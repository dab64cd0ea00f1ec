"""The next step of one model on its way, from what traffic says of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from evergreen.core.config import RolloutConfig
from evergreen.core.ports import Tally
from evergreen.core.records import Model
from evergreen.core.states import ModelState

#: Failed answers it takes before a share of failures means anything.
FEW = 3
#: Answers it takes before a mean latency means anything.
SOME = 20


@dataclass(frozen=True)
class Step:
    """What to do with a model now."""

    do: Literal["hold", "raise", "take back"]
    share: float
    because: str


def unfit(rules: RolloutConfig, tally: Tally) -> str:
    """Say why live traffic speaks against a model, or nothing. Pure.

    >>> unfit(RolloutConfig(max_error_rate=0.02), Tally(answered=96, failed=4))
    '4 of 100 answers failed, more than 2 %'
    """
    asked = tally.answered + tally.failed
    if tally.failed >= FEW and tally.failed > rules.max_error_rate * asked:
        return f"{tally.failed} of {asked} answers failed, more than {100 * rules.max_error_rate:.3g} %"
    if rules.max_latency_ms is not None and tally.answered >= SOME:
        mean = tally.latency_ms / tally.answered
        if mean > rules.max_latency_ms:
            return f"an answer takes {mean:.1f} ms on average, longer than {rules.max_latency_ms:g} ms"
    return ""


def decide(rules: RolloutConfig, model: Model, tally: Tally, now: datetime, *, alone: bool = False) -> Step:
    """Return the next step of one model. Pure. `tally`: since its last step. `alone`: no champion to protect."""
    if why := unfit(rules, tally):
        return Step("take back", 0.0, why)
    if alone:
        return Step("raise", 1.0, "there is no champion yet")
    if model.state is ModelState.PASSED:
        return Step("raise", rules.steps[0], "passed the gate")
    held = now - (model.since or now)
    if held < rules.hold:
        return Step("hold", model.share, f"for another {rules.hold - held}")
    if model.state is ModelState.CANARY and tally.answered < rules.min_answers:
        return Step("hold", model.share, f"{tally.answered} of {rules.min_answers} answers given")
    later = [s for s in rules.steps if s > model.share]
    return Step("raise", later[0] if later else 1.0, f"held for {_brief(held.total_seconds())}, {_traffic(tally)}")


def _traffic(tally: Tally) -> str:
    return f"{tally.answered} answers, {tally.failed} failed" if tally.answered else "no traffic"


def _brief(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
