"""Rules for promoting and taking back, under continuous looking: how often they are wrong, how many samples they need."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from measure import RESULTS, machine

from evergreen.core.config import EvidenceConfig
from evergreen.core.ports import Tally
from evergreen.stages.rollout.betting import Hits, Wager, bet
from evergreen.stages.rollout.confidence import EDGE, RHO2, difference, lower, sums
from evergreen.stages.rollout.evidence import EARLY

Array = np.ndarray
#: Repetitions, and samples of each variant at most.
REPEATS, MOST = 4000, 5000
BASES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
RULES = EvidenceConfig()
SUPERIOR = EvidenceConfig(prove="superiority", margin=0.0)


class Streams:
    """Many repetitions at once: one outcome of the challenger and `beside` of the champion at a time, counts so far."""

    def __init__(self, champion: float, challenger: float, seed: int, repeats: int, beside: int = 1) -> None:
        self._dice = np.random.default_rng(seed)
        self._rates = champion, challenger
        self.repeats, self.beside = repeats, beside
        self.steps = 0
        self.a = self.b = self.ya = self.yb = np.zeros(repeats)

    @property
    def na(self) -> int:
        """Outcomes of the champion."""
        return self.steps * self.beside

    @property
    def nb(self) -> int:
        """Outcomes of the challenger."""
        return self.steps

    def step(self) -> None:
        """Let more outcomes come."""
        self.ya = self._dice.binomial(self.beside, self._rates[0], self.repeats)
        self.yb = self._dice.binomial(1, self._rates[1], self.repeats)
        self.a, self.b, self.steps = self.a + self.ya, self.b + self.yb, self.steps + 1


class Bets:
    """`betting.bet` for many repetitions: that the second rate is above the first by more than `null`."""

    def __init__(self, repeats: int, gap: float, null: float, swapped: bool = False) -> None:
        self.gap, self.null, self.swapped = gap, null, swapped
        self.log_e = np.zeros(repeats)

    def look(self, s: Streams) -> Array:
        """Bet on the last outcomes."""
        n1, n2, y1, y2 = (1, s.beside, s.yb, s.ya) if self.swapped else (s.beside, 1, s.ya, s.yb)
        seen = (s.steps - 1) * (s.beside + 1) + 2
        centre, second = (s.a - s.ya + s.b - s.yb + 1) / seen, ((s.steps - 1) * n2 + 1) / seen
        apart = self.null + self.gap
        p1, p2 = np.clip(centre - apart * second, 0.001, 0.999), np.clip(centre + apart * (1 - second), 0.001, 0.999)
        q1 = self._nearest(n1, n2, p1, p2)
        q2 = q1 + self.null
        won = y1 * np.log(p1 / q1) + (n1 - y1) * np.log((1 - p1) / (1 - q1))
        won += y2 * np.log(p2 / q2) + (n2 - y2) * np.log((1 - p2) / (1 - q2))
        self.log_e += np.where(p2 - p1 > self.null, won, 0.0)
        return self.log_e

    def _nearest(self, n1: int, n2: int, p1: Array, p2: Array) -> Array:
        if self.null == 0:
            return (n1 * p1 + n2 * p2) / (n1 + n2)
        low = np.full_like(p1, max(0.0, -self.null))
        high = np.full_like(p1, min(1.0, 1.0 - self.null))
        for _ in range(40):
            x = (low + high) / 2
            y = x + self.null
            rising = n1 * (p1 - x) * y * (1 - y) + n2 * (p2 - y) * x * (1 - x) > 0
            low, high = np.where(rising, x, low), np.where(rising, high, x)
        return (low + high) / 2


def bound(s: Streams, alpha: float, null: float) -> Array:
    """Return `confidence.lower` for many repetitions."""
    pa, pb = (s.a + 1) / (s.na + 2), (s.b + 1) / (s.nb + 2)
    qb = np.clip((s.a + s.b + 1) / (s.na + s.nb + 2) + null * s.na / (s.na + s.nb), EDGE, 1 - EDGE)
    qa = np.clip(qb - null, EDGE, 1 - EDGE)
    t = s.na * s.nb / (s.na + s.nb)
    variance = np.maximum(pa * (1 - pa) / s.na + pb * (1 - pb) / s.nb, qa * (1 - qa) / s.na + qb * (1 - qb) / s.nb)
    grown = t * RHO2 + 1
    margin = np.sqrt(variance * t) * np.sqrt(2 * grown / (t**2 * RHO2) * np.log(1 + np.sqrt(grown) / (2 * alpha)))
    return s.b / s.nb - s.a / s.na - margin


def ours(rules: EvidenceConfig) -> Callable[[int], Callable[[Streams], tuple[Array, Array]]]:
    """Return our rule: what it promotes and what it takes back at each look."""
    null = -rules.margin if rules.prove == "non_inferiority" else rules.margin

    def begin(repeats: int) -> Callable[[Streams], tuple[Array, Array]]:
        harm, worth = Bets(repeats, rules.harm, 0.0, swapped=True), Bets(repeats, rules.harm, null)

        def look(s: Streams) -> tuple[Array, Array]:
            back = harm.look(s) >= np.log(1 / rules.harm_alpha)
            if s.nb < rules.burn_in:
                good = worth.look(s) >= np.log(1 / (rules.alpha * EARLY))
            else:
                good = bound(s, rules.alpha * (1 - EARLY), null) > null
            return good & ~back, back

        return look

    return begin


def naive(_: int) -> Callable[[Streams], tuple[Array, Array]]:
    """A z-test at 5 %, at every sample once there are ten of each: what a dashboard shows."""

    def look(s: Streams) -> tuple[Array, Array]:
        pa, pb = s.a / s.na, s.b / s.nb
        error = np.sqrt(np.maximum(pa * (1 - pa) / s.na + pb * (1 - pb) / s.nb, 1e-12))
        z = (pb - pa) / error
        return (z > 1.96) & (s.nb >= 10), (z < -1.96) & (s.nb >= 10)

    return look


def tensorzero(_: int) -> Callable[[Streams], tuple[Array, Array]]:
    """TensorZero's track-and-stop, as published: a generalised likelihood ratio above ln((1 + ln N) / 0.05).

    Two variants, ten samples of each first, epsilon 0, variances of at least 1e-12; here with equal shares, which for
    two variants is what its optimal allocation comes near to.
    """

    def look(s: Streams) -> tuple[Array, Array]:
        pa, pb = s.a / s.na, s.b / s.nb
        va, vb = (np.maximum(p * (1 - p) * n / max(n - 1, 1), 1e-12) for p, n in ((pa, s.na), (pb, s.nb)))
        ratio = (pb - pa) ** 2 / (2 * (va / s.na + vb / s.nb))
        stop = (ratio > np.log((1 + np.log(s.na + s.nb)) / 0.05)) & (s.nb >= 10)
        return stop & (pb > pa), stop & (pb < pa)

    return look


CONTENDERS: dict[str, Callable[[int], Callable[[Streams], tuple[Array, Array]]]] = {
    "evergreen, non-inferiority 2 points": ours(RULES),
    "evergreen, superiority": ours(SUPERIOR),
    "TensorZero's rule": tensorzero,
    "z-test at every sample": naive,
}


@dataclass(frozen=True)
class Ending:
    """How a rule ended, over all repetitions."""

    promoted: float
    back: float
    samples: float  #: mean; those that were not decided count in full
    error: float  #: standard error of that mean
    p90: float

    def __str__(self) -> str:
        return f"{self.samples:,.0f} ± {self.error:.0f}, {self.p90:,.0f}"


def play(champion: float, challenger: float, most: int, seed: int, beside: int = 1) -> list[Ending]:
    """Let every rule look at the same streams, sample by sample; `most` of the challenger's."""
    streams = Streams(champion, challenger, seed, REPEATS, beside)
    looks = [begin(REPEATS) for begin in CONTENDERS.values()]
    ended, how = np.zeros((len(looks), REPEATS)), np.zeros((len(looks), REPEATS))
    for _ in range(most):
        streams.step()
        for i, look in enumerate(looks):
            good, back = look(streams)
            fresh = (ended[i] == 0) & (good | back)
            ended[i][fresh] = streams.na + streams.nb
            how[i][fresh] = np.where(good[fresh], 1, -1)
        if (ended > 0).all():
            break
    ended[ended == 0] = most * (beside + 1)
    return [
        Ending(
            float((h > 0).mean()),
            float((h < 0).mean()),
            float(e.mean()),
            float(e.std() / REPEATS**0.5),
            float(np.quantile(e, 0.9)),
        )
        for e, h in zip(ended, how, strict=True)
    ]


def agree() -> None:
    """Check that what is simulated here is what the product computes."""
    for beside in (1, 9):
        s = Streams(0.4, 0.5, 9, 5, beside)
        harm, worth = Bets(5, 0.1, 0.0, swapped=True), Bets(5, 0.1, -0.02)
        slow = [(Wager(), Wager()) for _ in range(5)]
        for _ in range(120):
            s.step()
            harm.look(s)
            worth.look(s)
            for i in range(5):
                a, b = Hits(s.na, int(s.a[i])), Hits(s.nb, int(s.b[i]))
                slow[i] = bet(slow[i][0], b, a, gap=0.1), bet(slow[i][1], a, b, gap=0.1, null=-0.02)
        for i in range(5):
            np.testing.assert_allclose([harm.log_e[i], worth.log_e[i]], [w.log_e for w in slow[i]], rtol=1e-6)
            pair = [sums(Tally(judged=n, right=int(x)), "accuracy") for n, x in ((s.na, s.a[i]), (s.nb, s.b[i]))]
            product = lower(difference([(pair[0], pair[1])], -0.02), 0.045)
            np.testing.assert_allclose(bound(s, 0.045, -0.02)[i], product, rtol=1e-9)


def percent(x: float) -> str:
    """Write a share."""
    return f"{100 * x:.1f} %"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Write a table."""
    return "\n".join(
        ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *("| " + " | ".join(r) + " |" for r in rows)]
    )


@dataclass(frozen=True)
class Tables:
    """Rows of each table, and the figures that are promised."""

    equal: list[list[str]]
    edge: list[list[str]]
    better: list[list[str]]
    worse: list[list[str]]
    wrong: list[float]  #: promoted by us though not good enough
    gained: list[float]  #: samples until 10 points more were found
    lost: list[float]  #: samples until 10 points less were taken back


def simulate(bases: Sequence[float], most: int, seed: int, beside: int = 1) -> Tables:
    """Play every situation at every base rate, as far as a rate has room for it."""
    t = Tables([], [], [], [], [], [], [])
    for i, p in enumerate(bases):
        print(f"base rate {p}, {beside} of the champion for each of the challenger", flush=True)
        ends = play(p, p, most, seed + i, beside)
        t.equal.append([f"{p:.2f}", *(f"{percent(e.promoted)}, {percent(e.back)}" for e in ends)])
        t.wrong.append(ends[1].promoted)
        low = max(p, 0.03)
        ends = play(low, low - RULES.margin, most, seed + 20 + i, beside)
        t.edge.append([f"{low:.2f} → {low - RULES.margin:.2f}", *(percent(e.promoted) for e in ends)])
        t.wrong.extend(e.promoted for e in ends[:2])
        if p + 0.1 <= 1:
            ends = play(p, p + 0.1, most, seed + 40 + i, beside)
            t.better.append([f"{p:.2f} → {p + 0.1:.2f}", *(f"{e} ({percent(e.promoted)})" for e in ends)])
            t.gained.extend(e.samples for e in ends[:2])
        if p - 0.1 >= 0:
            ends = play(p, p - 0.1, most, seed + 60 + i, beside)
            t.worse.append([f"{p:.2f} → {p - 0.1:.2f}", *(f"{e} ({percent(e.back)})" for e in ends)])
            t.lost.extend(e.samples for e in ends[:2])
    return t


def tables(t: Tables, level: str) -> str:
    """Write the four tables."""
    names = list(CONTENDERS)
    return f"""{level} Equal models: promoted, taken back

To call one of two equal models better is wrong; non-inferiority is there to let an equal one through.

{table(["base rate", *names], t.equal)}

{level} Worse by just the margin of 2 points: promoted

{table(["rates", *names], t.edge)}

{level} Better by 10 points: samples until decided, mean ± its standard error, 90th percentile (share promoted)

{table(["rates", *names], t.better)}

{level} Worse by 10 points: samples until decided, mean ± its standard error, 90th percentile (share taken back)

{table(["rates", *names], t.worse)}
"""


def main() -> None:
    """Play everything, write the tables, and end with an error if ours do not keep what they promise."""
    began = time.monotonic()
    agree()
    even = simulate(BASES, MOST, 1100)
    tenth = simulate(BASES, MOST // 5, 1200, beside=9)
    verdict = [
        f"false promotions: {percent(max(even.wrong))} at most (to reach: 5 %); with a tenth {percent(max(tenth.wrong))}",
        f"10 points more: found after {max(even.gained):,.0f} samples at most on average (to reach: 800)",
        f"10 points less: taken back after {max(even.lost):,.0f} samples at most on average (to reach: 400)",
    ]
    text = f"""# Promoting and taking back under continuous looking

{chr(10).join("- " + line for line in verdict)}

Outcomes are right or wrong, and every rule looks at the same streams after every pair of outcomes: {REPEATS:,} repetitions
for each row, seeds fixed, at most {2 * MOST:,} samples. Samples are those of both together, and those not decided count
in full. Rows are left out where a rate would leave 0 to 1.

What the rules are:

- evergreen: the rule of `rollout.rule = "evidence"` with its defaults (`alpha` 0.05, `burn_in` 50 of each, `harm` 0.1,
  `harm_alpha` 0.18); the simulation is checked against `stages/rollout` before it runs.
- TensorZero's rule: track-and-stop's published boundary, a generalised likelihood ratio above ln((1 + ln N) / 0.05), from ten
  samples of each on, no margin, variances of at least 1e-12, here with fixed shares. It has no boundary for harm and no
  non-inferiority: it ends when one is declared better, whichever it is.
- z-test at every sample: two-sided at 5 %, from ten samples of each on.

How to read them: harm is found sooner than by TensorZero's rule because more is risked for it. To take a model back that is
no worse keeps the champion and costs a chance, so `harm_alpha` is 18 %, not 5 %: the first table shows how many equal models
are taken back, and how many of them TensorZero's rule declares worse. It was chosen with this simulation, as a figure that
takes 10 points less back within 400 samples at every base rate (0.15 took 409 ± 6 at 0.50); Wald's sequential test, which knows
the rates, needs about 600 at 5 %. Two more things were changed after simulations of an earlier version: the variance is now at least that under
the hypothesis (without it a tenth of the traffic promoted 7.5 % at 0.90 → 0.88), and the bet puts its rates where the shares
have them. The tables are of one run afterwards, with seeds that were not looked at before.

## Equal shares

{tables(even, "###")}
## A tenth of the traffic for the challenger

The same, with nine outcomes of the champion for each of the challenger: the sum of samples is larger, about
1 / (4 × 0.1 × 0.9) = 2.8 times. The other rules were not made for unequal shares that stay: TensorZero's begins with
equal ones and then moves them, so compare with it above.

{tables(tenth, "###")}
Took {time.monotonic() - began:.0f} s on one core. Machine: {machine()}.
Made by `python benchmarks/experiments.py`.
"""
    (RESULTS / "experiments.md").write_text(text, encoding="utf-8")
    print(text)
    if max(*even.wrong, *tenth.wrong) > 0.05 or max(even.gained) > 800 or max(even.lost) > 400:
        sys.exit("the rule does not keep what it promises")


if __name__ == "__main__":
    main()
