"""Feature by feature: is the window another than the reference, and by how much? Pure."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from evergreen.core.config import DriftConfig
from evergreen.stages.observe.drift import divergence
from evergreen.stages.observe.drift.sketch import Feature, Pane, Reference

Of = Literal["inputs", "outputs"]
Check = Literal["baseline_drift_check", "completeness_check", "categorical_values_check"]


@dataclass(frozen=True)
class Finding:
    """One comparison of one feature."""

    of: Of
    name: str
    check: Check
    test: Literal["Kolmogorov–Smirnov", "chi-square"]
    statistic: float
    p: float  #: adjusted for the number of comparisons, once `judge` has seen them all
    effect: float  #: population stability index, less what chance explains
    distance: float  #: Jensen–Shannon
    drifted: bool = False

    @property
    def key(self) -> str:
        """Tell comparisons apart."""
        return f"{self.of}/{self.name}/{'missing' if self.check == 'completeness_check' else 'values'}"


def compare(of: Of, reference: Reference, window: Pane) -> list[Finding]:
    """Compare every feature: its values, and how often it is missing."""
    found: list[Finding] = []
    for feature, counts in zip(reference.features, window.counts, strict=True):
        found += _feature(of, reference, feature, counts)
    return found


def judge(found: Sequence[Finding], rules: DriftConfig, before: Set[str] = frozenset()) -> list[Finding]:
    """Say what has drifted: far enough, and surely so among so many comparisons.

    What had drifted `before` stays so until its effect is half of what counts, so that alarms do not flicker.
    """
    judged = []
    for finding, p in zip(found, divergence.holm([f.p for f in found]), strict=True):
        new = p <= 1 - rules.confidence and finding.effect >= rules.effect
        still = finding.key in before and finding.effect >= rules.effect / 2
        judged.append(replace(finding, p=p, drifted=new or still))
    return judged


def _feature(of: Of, reference: Reference, feature: Feature, counts: Sequence[int]) -> list[Finding]:
    was, now = feature.counts, list(counts)
    if feature.kind == "category":
        return [_compared(of, reference, feature, was, now, _check(feature, now))]
    found = []
    gone, left = was[-1], now[-1]
    if sum(was[:-1]) and sum(now[:-1]):
        found.append(_compared(of, reference, feature, was[:-1], now[:-1], "baseline_drift_check"))
    if gone or left:
        before, after = [sum(was) - gone, gone], [sum(now) - left, left]
        found.append(_compared(of, reference, feature, before, after, "completeness_check"))
    return found


def _check(feature: Feature, now: Sequence[int]) -> Check:
    """Say whether a category differs mostly in values that the reference does not have."""
    other = len(feature.values)
    p, q = (([n / max(sum(c), 1) for n in c]) for c in (feature.counts, now))
    moved = sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    return "categorical_values_check" if moved and q[other] - p[other] >= moved / 2 else "baseline_drift_check"


def _compared(
    of: Of, reference: Reference, feature: Feature, was: Sequence[int], now: Sequence[int], check: Check
) -> Finding:
    alike = feature.gaps if check == "completeness_check" else feature.uneven
    m = sum(was) / alike.excess
    n = divergence.worth(sum(now), alike.excess, alike.growth, reference.block)
    used = sum(1 for a, b in zip(was, now, strict=True) if a or b)
    effect = max(0.0, divergence.psi(was, now) - divergence.expected_psi(used, m, n))
    ordered = feature.kind == "number" and check == "baseline_drift_check"
    test = divergence.kolmogorov_smirnov if ordered else divergence.chi_square
    statistic, p = test(was, now, m, n)
    return Finding(
        of,
        feature.name,
        check,
        "Kolmogorov–Smirnov" if ordered else "chi-square",
        statistic,
        p,
        effect,
        divergence.jensen_shannon(was, now),
    )
