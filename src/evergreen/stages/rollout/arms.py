"""What an experiment shows so far: who was exposed, estimates with intervals, what follows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Literal

from evergreen.core.config import RolloutConfig
from evergreen.core.ports import Tally
from evergreen.core.records import Arm, Experiment, Json
from evergreen.stages.rollout import ratio
from evergreen.stages.rollout.confidence import Sums, difference, lower, sums, told, upper
from evergreen.stages.rollout.steps import unfit

Call = Literal["champion", "open", "better", "worse", "out"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One arm, as it stands."""

    version: int
    share: float
    exposed: int  #: units that met it
    n: int  #: outcomes
    mean: float | None
    difference: float | None  #: to the champion
    low: float | None  #: of the interval around the difference; all intervals hold together, at every look
    high: float | None
    failed: int
    mean_ms: float | None
    call: Call
    because: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """An experiment, as it stands."""

    arms: Sequence[Estimate]
    chance: float  #: that arms meeting the shares promised would be exposed to as odd numbers of units
    do: Literal["wait", "freeze", "end"]
    because: str
    winner: int | None = None  #: version of the best arm that is better than the champion

    def plain(self) -> dict[str, Json]:
        """Write it as JSON."""
        arms = [{name: getattr(a, name) for name in Estimate.__slots__} for a in self.arms]
        return {"arms": arms, "chance": self.chance, "because": self.because, "winner": self.winner}


def stand(
    x: Experiment, tallies: Mapping[str, Tally], exposed: Mapping[str, int], rules: RolloutConfig, now: datetime
) -> Standing:
    """Weigh every arm against the champion. `tallies` by model id; `exposed` by version.

    An arm whose answers fail, that is slower than allowed, or worse with certainty, is out; the others go on until
    each is decided, or the deadline has come. `alpha` is shared by all arms and both directions.
    """
    home, *others = x.parties
    base = _since(home, tallies)
    arms = [_champion(x, home, base, exposed)]
    for arm in others:
        arms.append(_arm(x, arm, _since(arm, tallies), base, exposed, rules, len(others)))
    chance = _ratio(arms)
    if chance < ratio.CERTAIN:
        met = ", ".join(f"v{a.version} {a.exposed} ({100 * a.share:.3g} %)" for a in arms if a.call != "out")
        return Standing(arms, chance, "freeze", f"the arms did not meet the shares promised: {met}; p < {chance:.1g}")
    better = sorted((a for a in arms if a.call == "better"), key=lambda a: a.difference or 0.0)
    winner = better[-1].version if better else None
    late = x.deadline is not None and now >= x.deadline
    if late or not any(a.call == "open" for a in arms):
        said = "; ".join(a.because for a in arms if a.because)
        return Standing(arms, chance, "end", ("its deadline has come: " if late else "") + said, winner)
    return Standing(arms, chance, "wait", "more outcomes are needed", winner)


def _since(arm: Arm, tallies: Mapping[str, Tally]) -> Tally:
    return tallies.get(arm.model, Tally()) - Tally(**arm.before)  # type: ignore[arg-type]


def _champion(x: Experiment, arm: Arm, tally: Tally, exposed: Mapping[str, int]) -> Estimate:
    mine = sums(tally, x.metric)
    return _estimate(arm, tally, mine, exposed, "champion")


def _arm(
    x: Experiment, arm: Arm, tally: Tally, base: Tally, exposed: Mapping[str, int], rules: RolloutConfig, k: int
) -> Estimate:
    ours, theirs = sums(tally, x.metric), sums(base, x.metric)
    found = difference([(theirs, ours)])
    alpha = x.alpha / (2 * k)
    low, high = lower(found, alpha), upper(found, alpha)
    about = f"v{arm.version}: {told(x.metric, ours, theirs)}"
    ends = (None if low == -inf else low, None if high == inf else high, found.estimate if found.size else None)
    if arm.out:
        return _estimate(arm, tally, ours, exposed, "out", f"v{arm.version} is out: {arm.out}", ends)
    if why := unfit(rules, tally, base):
        return _estimate(arm, tally, ours, exposed, "worse", f"v{arm.version}: {why}", ends)
    if min(ours.n, theirs.n) >= x.burn_in and high < 0:
        return _estimate(arm, tally, ours, exposed, "worse", f"{about}: worse", ends)
    if min(ours.n, theirs.n) >= x.burn_in and low > 0:
        return _estimate(arm, tally, ours, exposed, "better", f"{about}: better", ends)
    return _estimate(arm, tally, ours, exposed, "open", f"{about}: not decided", ends)


def _estimate(
    arm: Arm,
    tally: Tally,
    mine: Sums,
    exposed: Mapping[str, int],
    call: Call,
    because: str = "",
    ends: tuple[float | None, float | None, float | None] = (None, None, None),
) -> Estimate:
    return Estimate(
        version=arm.version,
        share=arm.share,
        exposed=exposed.get(f"v{arm.version}", 0),
        n=int(mine.n),
        mean=mine.mean if mine.n else None,
        difference=ends[2],
        low=ends[0],
        high=ends[1],
        failed=tally.failed,
        mean_ms=tally.latency_ms / tally.answered if tally.answered else None,
        call=call,
        because=because,
    )


def _ratio(arms: Sequence[Estimate]) -> float:
    """Bound the probability of the exposures. Arms that are out are left out: their units are counted no more."""
    left = [a for a in arms if a.call != "out"]
    total = sum(a.share for a in left)
    return ratio.chance([a.exposed for a in left], [a.share / total for a in left])


def markdown(x: Experiment, standing: Mapping[str, Json]) -> str:
    """Write the report of an experiment for people."""
    percent = x.metric == "accuracy"

    def figure(value: float | None, signed: bool = False) -> str:
        if value is None:
            return "–"
        if percent:
            return f"{100 * value:{'+' if signed else ''}.1f}" + ("" if signed else " %")
        return f"{value:{'+' if signed else ''}.4g}"

    def span(low: float | None, high: float | None) -> str:
        return "–" if low is None or high is None else f"{figure(low, True)} to {figure(high, True)}"

    rows = [
        f"| v{a['version']} | {100 * a['share']:.3g} % | {a['exposed']:,} | {a['n']:,} | {figure(a['mean'])} "
        f"| {figure(a['difference'], True)} | {span(a['low'], a['high'])} "
        f"| {_ms(a['mean_ms'])} | {a['failed']:,} | {a['call']} |"
        for a in standing["arms"]
    ]
    points = " (points)" if percent else ""
    return "\n".join(
        [
            f"# Experiment {x.id} of {x.loop}",
            "",
            f"{x.state.value.capitalize()}. Started by {x.by}: {_sentence(x.why)}",
            f"Metric: {x.metric}. Intervals hold together with {100 * (1 - x.alpha):.3g} % certainty, however often is looked.",
            "",
            f"| version | share | units exposed | outcomes | mean | difference{points} | interval | ms | failed | |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            *(f"- {a['because']}" for a in standing["arms"] if a["call"] in ("better", "worse", "out")),
            "",
            f"Shares as promised: {'no' if standing['chance'] < ratio.CERTAIN else 'yes'} (p ≤ {standing['chance']:.3g}).",
            f"Decision: {_sentence(standing['because'])}"
            + (f" v{standing['winner']} is the best." if standing["winner"] else ""),
            "",
        ]
    )


def _sentence(text: str) -> str:
    """End with a full stop, unless it ends like a sentence."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _ms(value: float | None) -> str:
    """Write milliseconds."""
    return "–" if value is None else f"{value:.2f}"
