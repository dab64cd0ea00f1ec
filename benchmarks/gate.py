"""The gate's statistics by simulation: do intervals cover what they say, and how often is it wrong at its margin?

python benchmarks/gate.py [--quick]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from statistics import NormalDist

from measure import report

from evergreen.core.config import GateConfig
from evergreen.stages.gate import reuse, slices
from evergreen.stages.gate.rules import Case, decide
from evergreen.stages.gate.statistics import bootstrap, minimum_detectable, paired

Draw = Callable[[random.Random], float]
Pairs = tuple[list[float], list[float]]


def pairs(rng: random.Random, n: int, right: float, differ: float, gain: float) -> Pairs:
    """Draw the answers of two models: the champion's share right, the share of rows they differ on, the true difference."""
    better, worse = (differ + gain) / 2, (differ - gain) / 2
    mine, theirs = [], []
    for _ in range(n):
        u = rng.random()
        if u < better:
            a, b = 1.0, 0.0
        elif u < better + worse:
            a, b = 0.0, 1.0
        else:
            a = b = float(rng.random() < (right - worse) / (1 - differ))
        mine.append(a)
        theirs.append(b)
    return mine, theirs


def normal(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """Return the interval that is mostly taken: the mean and its standard error."""
    n, mean = len(values), sum(values) / len(values)
    error = (sum((v - mean) ** 2 for v in values) / (n - 1) / n) ** 0.5
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return mean - z * error, mean + z * error


def coverage(times: int) -> list[list[object]]:
    """Count how often the 95 % interval holds the truth, ours and the normal one."""
    kinds: list[tuple[str, float, Callable[[random.Random, int], list[float]]]] = [
        ("right or wrong, differ on 20 %", 0.02, lambda rng, n: _gains(rng, n, 0.2, 0.02)),
        ("right or wrong, differ on 5 %", 0.01, lambda rng, n: _gains(rng, n, 0.05, 0.01)),
        ("figures, skewed (exponential)", 1.0, lambda rng, n: [rng.expovariate(1) for _ in range(n)]),
        ("figures, very skewed (log-normal)", 2.718281828459045**0.5, lambda rng, n: [rng.lognormvariate(0, 1) for _ in range(n)]),
    ]  # fmt: skip
    table: list[list[object]] = []
    for name, truth, draw in kinds:
        for n in (40, 160, 640):
            ours, alone, theirs = [0, 0], [0, 0], [0, 0]
            for seed in range(times):
                values = draw(random.Random(f"{name}{n}{seed}"), n)
                interval, plain = paired(values, 0.95), bootstrap(values, 0.95)
                low, high = normal(values, 0.95)
                ours[0] += interval.low > truth
                ours[1] += interval.high < truth
                alone[0] += plain.low > truth
                alone[1] += plain.high < truth
                theirs[0] += low > truth
                theirs[1] += high < truth
            table.append([name, n, *_shares(ours, times), *_shares(alone, times), *_shares(theirs, times)])
    return table


def _gains(rng: random.Random, n: int, differ: float, gain: float) -> list[float]:
    return [a - b for a, b in zip(*pairs(rng, n, 0.8, differ, gain), strict=True)]


def _shares(missed: Sequence[int], times: int) -> list[str]:
    return [f"{1 - sum(missed) / times:.1%}", " / ".join(f"{m / times:.1%}" for m in missed)]


def clusters(times: int) -> list[list[object]]:
    """Count the same for rows that come in groups, drawn as groups and as if each row stood for itself."""
    table: list[list[object]] = []
    for size in (2, 5, 10):
        held = [0, 0]
        for seed in range(times):
            rng = random.Random(f"c{size}{seed}")
            values, groups = [], []
            for g in range(60):
                own = rng.gauss(0, 0.5)
                values += [own + rng.gauss(0, 0.5) for _ in range(size)]
                groups += [g] * size
            for i, found in enumerate((bootstrap(values, 0.95, seed, groups=groups), bootstrap(values, 0.95, seed))):
                held[i] += found.low <= 0 <= found.high
        table.append([f"60 groups of {size}", *(f"{h / times:.1%}" for h in held)])
    return table


def verdicts(times: int) -> list[list[object]]:
    """Count verdicts of the whole gate (margin .02) by what is true."""
    table: list[list[object]] = []
    rules, strict = GateConfig(margin=0.02), GateConfig(margin=0.02, benefit=False)
    for differ in (0.04, 0.15):
        for n in (60, 250, 1000, 4000):
            for truth, gain in (("worse by the margin", -0.02), ("equal", 0.0), ("better by .02", 0.02)):
                seen, sure = dict.fromkeys(("promote", "inconclusive", "reject"), 0), 0
                for seed in range(times):
                    mine, theirs = pairs(random.Random(f"v{differ}{n}{gain}{seed}"), n, 0.85, differ, gain)
                    case = Case({"accuracy": mine}, {"accuracy": theirs}, rival=1)
                    seen[decide(rules, case).outcome] += 1
                    sure += decide(strict, case).outcome == "promote"
                shares = [f"{count / times:.1%}" for count in (*seen.values(), sure)]
                table.append([f"{differ:.0%}", n, truth, *shares])
    return table


def harm(times: int) -> list[list[object]]:
    """Count how often any of twelve parts is called harmed: with nothing wrong, and with one part much worse."""
    table: list[list[object]] = []
    parts = [f"p{i % 12}" for i in range(1200)]
    for truth, gain in (
        ("every part worse by the margin exactly", -0.02),
        ("all equal", 0.0),
        ("one part worse by .15", -0.15),
    ):
        corrected = naive = right = 0
        for seed in range(times):
            rng = random.Random(f"h{gain}{seed}")
            one = gain == -0.15
            mine, theirs = pairs(rng, 1200, 0.8, 0.2, 0.0 if one else gain)
            if one:
                mine[:1200:12], theirs[:1200:12] = pairs(rng, 100, 0.8, 0.2, gain)
            rule = slices.Rule(margin=0.02, least=30, confidence=0.95, binary=True)
            found = slices.judge(rule, {"part": parts}, mine, theirs)
            corrected += any(p.harmed for p in found)
            right += next(p for p in found if p.value == "p0").harmed
            naive += any(p.high < -0.02 for p in found)
        table.append([truth, f"{corrected / times:.1%}", f"{right / times:.1%}" if one else "", f"{naive / times:.1%}"])
    return table


def looks(times: int) -> list[list[object]]:
    """Count how often at least one of k candidates, none better, is called better on the same rows."""
    table: list[list[object]] = []
    for k in (1, 5, 20, 50):
        wrong = [0, 0]
        for seed in range(times):
            called = [False, False]
            for i in range(k):
                gains = _gains(random.Random(f"l{seed}{i}"), 400, 0.2, 0.0)
                for which, confidence in enumerate((0.95, reuse.confidence(0.95, i))):
                    called[which] |= paired(gains, confidence).low > 0
            wrong = [w + c for w, c in zip(wrong, called, strict=True)]
        table.append([k, *(f"{w / times:.1%}" for w in wrong)])
    return table


def seen(times: int) -> list[list[object]]:
    """Check the effect that is said to be detectable: how often is one of that size found?"""
    table: list[list[object]] = []
    for n in (160, 640, 2500):
        found, said = 0, []
        for seed in range(times):
            rng = random.Random(f"s{n}{seed}")
            said.append(minimum_detectable(_gains(rng, n, 0.2, 0.0), 0.95) or 0.0)
            found += paired(_gains(rng, n, 0.2, said[-1]), 0.95).low > 0
        table.append([n, f"{sum(said) / times:.3f}", f"{found / times:.1%}"])
    return table


def section(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out a further table."""
    lines = [f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def main() -> None:
    """Run every simulation and write `results/gate.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    times = 100 if parser.parse_args().quick else 300
    many, few = 2 * times, times // 6
    more = [
        f"Share of {times} draws in which the 95 % interval holds the truth; misses are where it lies above / below it, "
        "2.5 % each where all is well.",
        section(
            f"Rows in groups: coverage of the 95 % interval ({times} draws)",
            ["", "drawn as groups", "as if each row stood for itself"],
            clusters(times),
        ),
        section(
            "Verdicts of the whole gate: non-inferiority, margin .02. To promote what is worse by the margin is wrong "
            f"({many} draws)",
            ["rows that differ", "rows", "truth", "promote", "inconclusive", "reject", "promote without benefit"],
            verdicts(many),
        ),
        section(
            f"Twelve parts of 100 rows, margin .02: how often any is called harmed ({times} draws)",
            ["truth", "Holm", "the harmed one is found", "each interval by itself"],
            harm(times),
        ),
        section(
            f"k candidates, none better, on the same 400 rows: how often any is called better ({few} draws)",
            ["k", "as it is", "with correct_looks"],
            looks(few),
        ),
        section(
            f"The effect said to be detectable, and how often one of that size was found (80 % is meant; {many} draws)",
            ["rows", "said", "found"],
            seen(many),
        ),
    ]
    title = "Judging candidates: intervals and verdicts by simulation"
    columns = ["figures", "rows", "gate", "misses", "BCa alone", "misses", "normal", "misses"]
    report("gate", title, columns, coverage(times), "\n\n".join(more))


if __name__ == "__main__":
    main()
