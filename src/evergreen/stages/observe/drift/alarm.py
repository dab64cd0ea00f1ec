"""One alarm for as long as something is wrong: when it begins, when another kind joins it, when it is over. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from evergreen.core.records import Json
from evergreen.stages.observe.drift.compare import Finding
from evergreen.stages.observe.drift.stream import Quality

#: Features that an event names, and those it lists.
NAMED, LISTED = 3, 10


class Alarm(msgspec.Struct, frozen=True):
    """That live traffic is another than the champion learnt from."""

    since: str  #: when it began
    kinds: list[str]  #: inputs, outputs, quality
    because: str
    told: list[str] = []  #: kinds that were told since it began; what comes and goes is no news


def kinds(found: Iterable[Finding], quality: Quality) -> list[str]:
    """Return what is wrong, by kind.

    >>> kinds([], Quality(fallen=True))
    ['quality']
    """
    drifted = {f.of for f in found if f.drifted}
    return [kind for kind in ("inputs", "outputs") if kind in drifted] + ["quality"] * quality.fallen


def news(before: Alarm | None, now: Sequence[str]) -> str | None:
    """Return the kind of event that is due: `drift` when it begins or a kind joins it, `all clear` when it is over.

    >>> news(None, ["inputs"]), news(Alarm("", ["inputs"], ""), ["inputs"]), news(Alarm("", ["inputs"], ""), [])
    ('drift', None, 'all clear')
    """
    if before is None:
        return "drift" if now else None
    if not now:
        return "all clear"
    return None if {*now} <= {*before.kinds, *before.told} else "drift"


def of(before: Alarm | None, now: Sequence[str], because: str, at: str) -> Alarm | None:
    """Return the alarm that there is now, if there is one."""
    if not now:
        return None
    if before is None:
        return Alarm(at, [*now], because, [*now])
    return Alarm(before.since, [*now], because, sorted({*before.told, *before.kinds, *now}))


def worst(found: Iterable[Finding]) -> list[Finding]:
    """Return what has drifted, the farthest first."""
    return sorted((f for f in found if f.drifted), key=lambda f: (-f.effect, f.key))


def told(found: Sequence[Finding], quality: Quality, rows: int, version: int, before: Sequence[str] = ()) -> str:
    """Say in a sentence what is wrong, or that nothing is; `before`: the kinds of the alarm so far."""
    said = []
    for of in ("inputs", "outputs"):
        drifted = [f for f in worst(found) if f.of == of]
        if drifted:
            some = ", ".join(
                f"{f.name}{' missing' if f.check == 'completeness_check' else ''} (PSI {f.effect:.2f})"
                for f in drifted[:NAMED]
            )
            more = f" and {len(drifted) - NAMED} more" if len(drifted) > NAMED else ""
            said.append(f"{of} have changed: {some}{more}")
    if said and rows:
        said[-1] += f" (last {rows:,} predictions)"
    right = f"{100 * quality.share:.0f} % of the last {quality.judged:,} judged answers were right"
    if quality.fallen:
        said.append(f"{right}, {100 * quality.level:.0f} % before")
    return "; ".join(said) or _calm(found, right if quality.judged else "", rows, version, before)


def _calm(found: Sequence[Finding], right: str, rows: int, version: int, before: Sequence[str]) -> str:
    """Say that nothing is wrong, as far as can be told."""
    said = []
    if "quality" in before or not found:
        said.append(right or f"v{version} has taken over, and its answers are judged anew")
    if found:
        said.append(f"the last {rows:,} predictions are like what v{version} knows")
    return "; ".join(said)


def details(found: Sequence[Finding], quality: Quality, kinds: Sequence[str], version: int) -> dict[str, Json]:
    """Return what goes with an event: the kinds, and the features that have drifted the farthest."""
    drifted: list[Mapping[str, Json]] = [
        {"of": f.of, "name": f.name, "check": f.check, "psi": round(f.effect, 4), "p": f.p}
        for f in worst(found)[:LISTED]
    ]
    said: dict[str, Json] = {"version": version, "kinds": list(kinds), "features": drifted}
    if quality.fallen:
        said["quality"] = {"share": round(quality.share, 4), "before": round(quality.level, 4), "n": quality.judged}
    return said
