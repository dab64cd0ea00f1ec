"""Charts as SVG, drawn on the server: no script, no inline style, colours from the style sheet by class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from evergreen.http.pages.words import Scale, cut

Kind = Literal["champion", "former", "coming", "refused"]


@dataclass(frozen=True)
class Point:
    """One version's figure, with its interval if it is known."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: Kind = "former"
    note: str = ""  #: the state, in words


@dataclass(frozen=True)
class Difference:
    """By how much a candidate's figure differs from the champion's."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    decisive: bool = False  #: the metric the gate decides by
    tone: Literal["", "harmed", "faint"] = ""  #: certainly worse; too few rows to say


@dataclass(frozen=True)
class Axis:
    """A linear map from figures to a coordinate."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the coordinate of a figure; figures beyond the ends sit on them."""
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(self.start + (self.end - self.start) * min(max(share, 0), 1), 1)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return round figures that cover `low` to `high`, roughly `about` of them.

    >>> ticks(0.81, 0.93)
    [0.8, 0.85, 0.9, 0.95]
    """
    least = 1e-6 * max(abs(low), abs(high), 1)
    if high - low < least:  # flat: show some of what lies about
        room = max(abs(low) * 0.01, 0.01)
        low, high = low - room, high + room
    raw = (high - low) / max(about - 1, 1)
    size = 10 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _ends(points: Iterable[Point | Difference]) -> tuple[float, float]:
    figures = [f for p in points for f in (p.value, p.low, p.high) if f is not None]
    return min(figures), max(figures)


def mark(kind: str) -> Markup:
    """Return the shape that stands for a state: colour is never the only sign."""
    return Markup('<svg class="mark" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">{}</svg>').format(
        _MARKS.get(kind, _MARKS["candidate"])
    )


_MARKS = {
    "champion": Markup('<path class="fill" d="M6 .6 11 6 6 11.4 1 6Z"/>'),
    "canary": Markup(
        '<circle class="line" cx="6" cy="6" r="4.6"/><path class="fill" d="M6 1.4a4.6 4.6 0 0 1 0 9.2Z"/>'
    ),
    "shadow": Markup('<circle class="line dotted" cx="6" cy="6" r="4.6"/>'),
    "passed": Markup('<path class="line" d="m1.6 6.4 3 3 5.8-6.6"/>'),
    "candidate": Markup('<circle class="line" cx="6" cy="6" r="4.6"/>'),
    "rejected": Markup('<path class="line" d="m2 2 8 8M10 2l-8 8"/>'),
    "undecided": Markup('<path class="line" d="M1.5 6h9"/><circle class="fill" cx="6" cy="6" r="2.4"/>'),
    "retired": Markup('<path class="line" d="M6 1.6 10.4 6 6 10.4 1.6 6Z"/>'),
    "rolled_back": Markup('<path class="line" d="M4.6 2 1.8 4.8l2.8 2.8M2 4.8h5a2.6 2.6 0 0 1 0 5.2H5"/>'),
    "running": Markup('<path class="line" d="M10.6 6A4.6 4.6 0 1 1 6 1.4"/>'),
    "failed": Markup('<path class="line" d="M6 1.4 11 10.4H1Z"/><path class="line" d="M6 5v2.6"/>'),
    "good": Markup('<circle class="fill" cx="6" cy="6" r="4"/>'),
    "idle": Markup('<circle class="line" cx="6" cy="6" r="3.4"/>'),
}


def figure(width: float, height: float, name: str, title: str, desc: str, body: Iterable[Markup]) -> Markup:
    """Put a picture together; `title` and `desc` say what it shows to those who cannot see it."""
    return Markup(
        '<svg class="chart {name}" viewBox="0 0 {w:g} {h:g}" role="img"><title>{title}</title><desc>{desc}</desc>{body}</svg>'
    ).format(name=name, w=width, h=height, title=title, desc=desc, body=Markup("").join(body))


def line(cls: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    """Draw a line of a class of the style sheet."""
    return Markup('<line class="{}" x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}"/>').format(cls, x1, y1, x2, y2)


def text(cls: str, x: float, y: float, said: str, anchor: str = "start") -> Markup:
    """Write into a picture."""
    return Markup('<text class="{}" x="{:g}" y="{:g}" text-anchor="{}">{}</text>').format(cls, x, y, anchor, said)


def path(cls: str, corners: Sequence[tuple[float, float]]) -> Markup:
    """Draw a line through corners."""
    d = " ".join(f"{'L' if i else 'M'}{x:g} {y:g}" for i, (x, y) in enumerate(corners))
    return Markup('<path class="{}" d="{}"/>').format(cls, d)


def _dot(p: Point, x: float, y: float, r: float) -> Markup:
    if p.kind == "champion":
        r *= 1.45
        d = f"M{x:g} {y - r:g} {x + r:g} {y:g} {x:g} {y + r:g} {x - r:g} {y:g}Z"
        return Markup('<path class="dot champion" d="{}"/>').format(d)
    return Markup('<circle class="dot {}" cx="{:g}" cy="{:g}" r="{:g}"/>').format(p.kind, x, y, r)


def describe(points: Sequence[Point], scale: Scale) -> str:
    """Say in words what a chart of versions shows."""

    def one(p: Point) -> str:
        between = f" ({scale.span(p.low, p.high)})" if p.low is not None and p.high is not None else ""
        return f"{p.label} {scale.text(p.value)}{between}{', ' + p.note if p.note else ''}"

    return "; ".join(one(p) for p in points) + "."


def sparkline(points: Sequence[Point], name: str, scale: Scale, width: int = 160, height: int = 40) -> Markup:
    """Draw a score over versions, small; rejected versions are hollow and off the line."""
    if not points:
        return Markup("")
    low, high = _ends(Point(p.label, p.value) for p in points)
    y = Axis(low, high, height - 7, 7) if high > low else Axis(low - 1, low + 1, height - 7, 7)
    x = Axis(0, max(len(points) - 1, 1), 7, width - 7) if len(points) > 1 else Axis(-1, 1, 7, width - 7)
    places = [(x.at(i), y.at(p.value)) for i, p in enumerate(points)]
    through = [at for at, p in zip(places, points, strict=True) if p.kind != "refused"]
    body = [path("trend", through)] if len(through) > 1 else []
    body += [_dot(p, *at, 3) for at, p in zip(places, points, strict=True)]
    return figure(width, height, "spark", f"{name} over versions", describe(points, scale), body)


def versions(points: Sequence[Point], name: str, scale: Scale, width: int = 720, height: int = 260) -> Markup:
    """Draw a score over versions with its interval; a line joins those that were let through."""
    if not points:
        return Markup("")
    low, high = _ends(points)
    if scale.percent and high - low < 0.02:  # shares end at 0 and 1
        low, high = max(low - 0.05, 0.0), min(high + 0.05, 1.0)
    marks = ticks(low, high)
    left, right, top, bottom = 58, width - 18, 16, height - 30
    y = Axis(marks[0], marks[-1], bottom, top)
    step = (right - left) / len(points)
    body: list[Markup] = []
    for m in marks:
        body += [
            line("grid", left, y.at(m), right, y.at(m)),
            text("tick", left - 10, y.at(m) + 4, _tick(m, marks, scale), "end"),
        ]
    places = [(round(left + step * (i + 0.5), 1), y.at(p.value)) for i, p in enumerate(points)]
    champion = next((at for at, p in zip(places, points, strict=True) if p.kind == "champion"), None)
    if champion:
        body.append(line("reference", left, champion[1], right, champion[1]))
    body.append(path("trend", [at for at, p in zip(places, points, strict=True) if p.kind != "refused"] or [places[0]]))
    every = math.ceil(34 / step) if step < 34 else 1
    for i, ((px, py), p) in enumerate(zip(places, points, strict=True)):
        shown = [_whisker(p, px, y), _dot(p, px, py, 5)]
        title = describe([p], scale).removesuffix(".")
        body.append(Markup('<g class="point {}"><title>{}</title>{}</g>').format(p.kind, title, Markup("").join(shown)))
        if (len(points) - 1 - i) % every == 0:
            body.append(text(f"tick {p.kind}", px, height - 9, p.label, "middle"))
    return figure(width, height, "versions", f"{name} over versions", describe(points, scale), body)


def _tick(value: float, marks: Sequence[float], scale: Scale) -> str:
    step = (marks[1] - marks[0]) * (100 if scale.percent else 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else int(step % 1 > 0)
    return f"{value * 100:.{digits}f} %" if scale.percent else f"{value:.{digits}f}"


def _whisker(p: Point, x: float, y: Axis) -> Markup:
    if p.low is None or p.high is None:
        return Markup("")
    low, high = y.at(p.low), y.at(p.high)
    caps = line("whisker", x - 4, low, x + 4, low) + line("whisker", x - 4, high, x + 4, high)
    return line("whisker", x, low, x, high) + caps


def interval(p: Point, low: float, high: float, width: int = 96) -> Markup:
    """Draw one figure with its interval on an axis shared with others; for a table's cell, which says it in words."""
    x = Axis(low, high, 6, width - 6)
    body = [line("grid", 2, 9, width - 2, 9)]
    if p.low is not None and p.high is not None:
        body.append(line("whisker", x.at(p.low), 9, x.at(p.high), 9))
    body.append(_dot(p, x.at(p.value), 9, 3.6))
    return Markup('<svg class="chart interval" viewBox="0 0 {} 18" aria-hidden="true">{}</svg>').format(
        width, Markup("").join(body)
    )


def forest(
    rows: Sequence[Difference],
    scale: Scale,
    margin: float | None,
    width: int = 640,
    title: str = "Difference to the champion on the same rows",
) -> Markup:
    """Draw differences to the champion around zero, with intervals where known and the margin as a band."""
    if not rows:
        return Markup("")
    low, high = _ends(rows)
    reach = max(abs(low), abs(high), (margin or 0) * 1.3, 1e-6) * 1.1
    label, height = min(width * 0.36, 190), 34 * len(rows) + 52
    x = Axis(-reach, reach, label + 12, width - 16)
    floor = height - 40
    body = []
    if margin:
        at, end = x.at(-margin), x.at(margin)
        body.append(
            Markup('<rect class="band" x="{:g}" y="6" width="{:g}" height="{:g}"/>').format(
                at, round(end - at, 1), floor - 6
            )
        )
    for t in _round_about_zero(reach):
        body += [
            line("zero" if t == 0 else "grid", x.at(t), 6, x.at(t), floor),
            text("tick", x.at(t), floor + 17, scale.difference(t, unit=False), "middle"),
        ]
    body += [
        text("tick", label + 12, floor + 34, "worse", "start"),
        text("tick", width - 16, floor + 34, "better", "end"),
    ]
    for i, row in enumerate(rows):
        y = 25 + 34 * i
        short = cut(row.label, max(int(label / 7), 8))
        body.append(text(f"label {'decisive' if row.decisive else row.tone}".strip(), 0, y + 4, short))
        whisker = f"whisker {row.tone}".strip()
        if row.low is not None and row.high is not None:
            body.append(line(whisker, x.at(row.low), y, x.at(row.high), y))
            body += [line(whisker, x.at(end), y - 5, x.at(end), y + 5) for end in (row.low, row.high)]
        body.append(_square(row, x.at(row.value), y))
    said = "; ".join(_told(r, scale) for r in rows) + "."
    return figure(width, height, "forest", title, said, body)


def _square(row: Difference, x: float, y: float) -> Markup:
    """Draw a difference's mark: a diamond where it is certainly worse, a square else."""
    kind = "decisive" if row.decisive else row.tone or "plain"
    if row.tone == "harmed":
        d = f"M{x:g} {y - 7:g} {x + 7:g} {y:g} {x:g} {y + 7:g} {x - 7:g} {y:g}Z"
        return Markup('<path class="dot {}" d="{}"/>').format(kind, d)
    return Markup('<rect class="dot {}" x="{:g}" y="{:g}" width="10" height="10" rx="1"/>').format(kind, x - 5, y - 5)


@dataclass(frozen=True)
class Reliability:
    """How often answers that were about equally sure were right."""

    label: str
    bins: Sequence[tuple[float, float, int]]  #: how sure, share right, answers
    own: bool  #: the candidate's; else the champion's


def reliability(rows: Sequence[Reliability], side: int = 320) -> Markup:
    """Draw how sure answers were against how often they were right; on the dashed line they are the same."""
    rows = [row for row in rows if row.bins]
    if not rows:
        return Markup("")
    left, top, bottom, right = 46, 10, side - 46, side - 12
    x, y = Axis(0, 1, left, right), Axis(0, 1, bottom, top)
    body = []
    for t in (0, 0.25, 0.5, 0.75, 1):
        body += [
            line("grid", left, y.at(t), right, y.at(t)),
            text("tick", left - 8, y.at(t) + 4, f"{t:.0%}".replace("%", ""), "end"),
            text("tick", x.at(t), bottom + 18, f"{t:.0%}".replace("%", ""), "middle"),
        ]
    body += [
        line("reference", x.at(0), y.at(0), x.at(1), y.at(1)),
        text("tick", (left + right) / 2, side - 8, "sure, in per cent", "middle"),
        text("tick", left + 6, top + 12, "right, in per cent", "start"),
    ]
    for row in sorted(rows, key=lambda one: one.own):
        most = max(n for *_, n in row.bins)
        places = [(x.at(sure), y.at(share), 3 + 4 * math.sqrt(n / most)) for sure, share, n in row.bins]
        kind = "own" if row.own else "other"
        if len(places) > 1:
            body.append(path(f"line {kind}", [place[:2] for place in places]))
        body += [Markup('<circle class="dot {}" cx="{:g}" cy="{:g}" r="{:.1f}"/>').format(kind, *p) for p in places]
    said = "; ".join(
        f"{row.label}: " + ", ".join(f"{sure:.0%} sure, {share:.0%} right of {n:,}" for sure, share, n in row.bins)
        for row in rows
    )
    return figure(side, side, "reliability", "How sure answers were, and how often they were right", said + ".", body)


def gap(value: float, low: float | None, high: float | None, width: int = 96) -> Markup:
    """Draw one difference around zero on its own axis; for a table's cell, which says it in words."""
    reach = max(abs(f) for f in (value, low or 0.0, high or 0.0)) * 1.15 or 1.0
    x = Axis(-reach, reach, 6, width - 6)
    body = [line("zero", width / 2, 2, width / 2, 16)]
    if low is not None and high is not None:
        body.append(line("whisker", x.at(low), 9, x.at(high), 9))
    body.append(Markup('<circle class="dot plain" cx="{:g}" cy="9" r="3.6"/>').format(x.at(value)))
    return Markup('<svg class="chart interval gap" viewBox="0 0 {} 18" aria-hidden="true">{}</svg>').format(
        width, Markup("").join(body)
    )


def _told(row: Difference, scale: Scale) -> str:
    within = between(row.low, row.high, scale)
    return f"{row.label} {scale.difference(row.value)}{f' ({within})' if within else ''}"


def between(low: float | None, high: float | None, scale: Scale) -> str:
    """Write an interval around a difference; nothing where it is not known."""
    if low is None or high is None:
        return ""
    return f"{scale.difference(low, unit=False)} to {scale.difference(high)}"


def _round_about_zero(reach: float) -> list[float]:
    step = ticks(0, reach, 3)[1]
    return [step * i for i in range(-2, 3) if abs(step * i) <= reach]


def bar(share: float, tone: str = "") -> Markup:
    """Draw a horizontal bar that fills `share` (0 to 1) of its width; the figure stands beside it in words."""
    return Markup(
        '<svg class="bar {}" width="100%" height="8" aria-hidden="true" preserveAspectRatio="none">'
        '<rect class="track" width="100%" height="8" rx="4"/><rect class="value" width="{:.1f}%" height="8" rx="4"/></svg>'
    ).format(escape(tone), min(max(share, 0), 1) * 100)
