"""Drift on a loop's page: how it stands in a sentence, and each feature as a small picture, reference against window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from evergreen.http.pages import words
from evergreen.http.pages.charts import figure, line, path, text
from evergreen.http.pages.words import Moment

#: Features that are drawn; categories and columns of one picture.
SHOWN, ROWS, COLUMNS = 12, 6, 16
#: A number with at most so many bins is drawn bin by bin.
_FEW = 9
_WIDTH, _HEIGHT = 240, 96


@dataclass(frozen=True)
class Feature:
    """One feature as it is drawn."""

    name: str
    of: str  #: input or output
    drifted: bool
    note: str  #: the effect, in words
    picture: Markup


@dataclass(frozen=True)
class Drift:
    """The part of a loop's page that is about drift."""

    tone: str  #: calm, watch or empty
    sentence: str
    since: Moment | None
    features: Sequence[Feature]
    more: int
    reference: str
    window: str
    quality: str


def part(said: Mapping[str, Any], now: datetime) -> Drift | None:
    """Put it together from `observe.drift_report`; None where drift is not watched."""
    if not said.get("watched"):
        return None
    alarm = said["alarm"]
    drawn = [_feature(one) for one in said["features"][:SHOWN]]
    sides = [said[of] for of in ("inputs", "outputs") if said[of]]
    seen = max((side["window"] for side in sides), default=0)
    return Drift(
        tone="watch" if alarm else "calm" if any(f.note for f in drawn) else "empty",
        sentence=said["because"][:1].upper() + said["because"][1:] + ".",
        since=words.moment(datetime.fromisoformat(alarm["since"]), now) if alarm else None,
        features=drawn,
        more=max(0, len(said["features"]) - SHOWN),
        reference=words.counted(sides[0]["reference"], "row") if sides else "",
        window=words.counted(seen, "prediction") if seen else "",
        quality=_quality(said["quality"]),
    )


def _quality(said: Mapping[str, Any] | None) -> str:
    if not said:
        return ""
    before = f"; {words.percent(said['before'], 0)} before" if said["before"] is not None and said["fallen"] else ""
    return f"{words.percent(said['share'], 0)} of {words.counted(said['judged'], 'judged answer')} right{before}"


def _feature(said: Mapping[str, Any]) -> Feature:
    worst = max(said["checks"], key=lambda c: (c["drifted"], c["psi"]), default=None)
    missing = " · missing" if worst and worst["drifted"] and worst["check"] == "completeness_check" else ""
    note = f"PSI {worst['psi']:.2f}{missing}" if worst else ""
    name = said["name"] if said["of"] == "inputs" else f"answer: {said['name']}"
    tone = "drifted" if said["drifted"] else "calm"
    draw = _numbers if said["kind"] == "number" else _categories
    return Feature(name, said["of"].removesuffix("s"), said["drifted"], note, draw(name, said["bins"], tone))


def _numbers(name: str, bins: Sequence[Mapping[str, Any]], tone: str) -> Markup:
    """Draw two histograms over one axis: the reference filled, the window as a line. Missing values stand apart."""
    *inner, missing = bins
    was, now = (_shares(bins, side) for side in ("reference", "window"))
    ends = [b["to"] for b in inner if b["to"] is not None]
    columns = list(zip(was[:-1], now[:-1], strict=True))
    if len(inner) > _FEW:
        columns = [*zip(*(_even(inner, shares[:-1], ends) for shares in (was, now)), strict=True)]
    gone = (was[-1], now[-1]) if missing["reference"] or missing["window"] else None
    floor, top = _HEIGHT - 20, 6
    right = _WIDTH - (44 if gone else 2)
    highest = max([max(pair) for pair in columns] + [max(gone or (0, 0)), 1e-9])
    step = (right - 2) / max(len(columns), 1)

    def y(share: float) -> float:
        return round(floor - (floor - top) * share / highest, 1)

    body = [_bar(2 + i * step, y(a), step - 1, floor - y(a)) for i, (a, _) in enumerate(columns)]
    corners = [(2.0, float(floor))]
    for i, (_, b) in enumerate(columns if any(now) else ()):
        corners += [(round(2 + i * step, 1), y(b)), (round(2 + (i + 1) * step, 1), y(b))]
    if any(now):
        body.append(path(f"is {tone}", [*corners, (round(2 + len(columns) * step, 1), float(floor))]))
    body.append(line("grid", 0, floor, right, floor))
    if ends and _short(ends[0]) == _short(ends[-1]):
        body.append(text("tick", (2 + right) / 2, _HEIGHT - 5, _short(ends[0]), "middle"))
    elif ends:  # the first column is all that is less than the first tick, the last all that is more than the last
        body += [
            text("tick", 2 + step, _HEIGHT - 5, _short(ends[0]), "middle" if step > 20 else "start"),
            text("tick", right - step, _HEIGHT - 5, _short(ends[-1]), "middle" if step > 20 else "end"),
        ]
    if gone:
        body += [_bar(_WIDTH - 24, y(gone[0]), 20, floor - y(gone[0]))]
        body.append(path(f"is {tone}", [(_WIDTH - 24, y(gone[1])), (_WIDTH - 4, y(gone[1]))]))
        body.append(text("tick", _WIDTH, _HEIGHT - 5, "none", "end"))
    return figure(_WIDTH, _HEIGHT, "drift", name, _told(bins), body)


def _categories(name: str, bins: Sequence[Mapping[str, Any]], tone: str) -> Markup:
    """Draw a bar for each of the categories that differ most: the reference wide, the window narrow upon it."""
    was, now = (_shares(bins, side) for side in ("reference", "window"))
    rows = [(b["label"], p, q) for b, p, q in zip(bins, was, now, strict=True) if p or q]
    rows = sorted(rows, key=lambda r: -max(r[1], r[2]))[:ROWS] if len(rows) > ROWS else rows
    highest = max([max(p, q) for _, p, q in rows] + [1e-9])
    height = 8 + 16 * max(len(rows), 1)
    body: list[Markup] = []
    for i, (label, p, q) in enumerate(rows):
        y, wide = 4 + 16 * i, _WIDTH - 88
        body.append(text("tick", 0, y + 11, words.cut(label, 12)))
        body.append(_bar(84, y + 1, round(wide * p / highest, 1), 13))
        body.append(_bar(84, y + 5, round(wide * q / highest, 1), 5, f"is {tone}"))
    return figure(_WIDTH, height, "drift", name, _told(bins), body)


def _bar(x: float, y: float, width: float, height: float, kind: str = "was") -> Markup:
    return Markup('<rect class="{}" x="{:g}" y="{:g}" width="{:g}" height="{:g}"/>').format(
        kind, round(x, 1), y, round(max(width, 0), 1), round(max(height, 0), 1)
    )


def _even(bins: Sequence[Mapping[str, Any]], shares: Sequence[float], ends: Sequence[float]) -> list[float]:
    """Spread bins of any width over columns of one width; what lies beyond the ends has the first and the last."""
    low, high = ends[0], ends[-1]
    width = (high - low) / COLUMNS or 1.0
    columns = [0.0] * COLUMNS
    for (start, end), share in zip(pairwise(ends), shares[1:-1], strict=True):
        for i in range(COLUMNS):
            left, right = low + i * width, low + (i + 1) * width
            common = min(end, right) - max(start, left)
            if common > 0:
                columns[i] += share * common / ((end - start) or 1.0)
    return [shares[0], *columns, shares[len(bins) - 1]]


def _shares(bins: Sequence[Mapping[str, Any]], side: str) -> list[float]:
    whole = sum(b[side] for b in bins) or 1
    return [b[side] / whole for b in bins]


def _told(bins: Sequence[Mapping[str, Any]]) -> str:
    """Say in words what a picture shows: the bins that differ most."""
    was, now = (_shares(bins, side) for side in ("reference", "window"))
    order = sorted(range(len(bins)), key=lambda i: -abs(was[i] - now[i]))[:3]
    seen = [f", {words.percent(share, 0)} now" if any(now) else "" for share in now]
    said = [f"{_named(bins[i])}: {words.percent(was[i], 0)} in the reference{seen[i]}" for i in order]
    return "; ".join(said) + "."


def _named(b: Mapping[str, Any]) -> str:
    if "label" in b:
        return str(b["label"])
    low, high = b["from"], b["to"]
    if low is None:
        return "any value" if high is None else f"up to {_short(high)}"
    return f"above {_short(low)}" if high is None else f"{_short(low)} to {_short(high)}"


def _short(value: float) -> str:
    return words.signed(f"{0.0 if abs(value) < 1e-12 else value:.3g}")
