"""The page of a gate decision: the verdict in words first, then what it rests on, drawn. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evergreen.core.config import GateConfig
from evergreen.core.records import Model
from evergreen.http.pages import charts, words
from evergreen.http.pages.words import Scale
from evergreen.stages.gate import report

#: Parts that are drawn; the table has all that the verdict kept.
DRAWN = 24
_TONES = {"promote": "calm", "reject": "trouble", "inconclusive": "watch", "not_comparable": "watch"}
_MARKS = {"promote": "passed", "reject": "rejected", "inconclusive": "undecided", "not_comparable": "undecided"}


@dataclass(frozen=True)
class MetricRow:
    """One metric of both models."""

    name: str
    means: str
    candidate: str
    champion: str
    difference: str
    between: str
    picture: Markup
    decides: bool
    less: bool  #: less of it is better


@dataclass(frozen=True)
class PartRow:
    """One part of the held-out rows."""

    slice: str
    value: str
    rows: str
    candidate: str
    champion: str
    difference: str
    between: str
    p: str
    tone: str
    said: str


@dataclass(frozen=True)
class Sure:
    """How far one model's probabilities can be believed."""

    who: str
    own: bool
    ece: str
    brier: str
    log_loss: str


@dataclass(frozen=True)
class GatePage:
    """Everything the page of a decision shows."""

    loop: str
    version: int
    state: str
    outcome: str
    tone: str
    mark: str
    because: str
    asked: str
    rival: int | None
    power: str
    looked: str
    mind: Sequence[str]
    facts: Sequence[tuple[str, str, str]]
    metrics: Sequence[MetricRow]
    wide: Markup
    narrow: Markup
    parts: Sequence[PartRow]
    parts_said: str
    parts_wide: Markup
    parts_narrow: Markup
    sure: Sequence[Sure]
    reliability: Markup
    golden: Sequence[Mapping[str, Any]]
    golden_said: str


def page(model: Model, rules: GateConfig) -> GatePage:
    """Put the page together from what the gate wrote down."""
    verdict: Mapping[str, Any] = model.verdict
    f: Mapping[str, Any] = verdict.get("figures") or {}
    outcome = str(verdict.get("outcome"))
    scale = _scale(f)
    wide, narrow = (_metric_forest(f, scale, width) for width in (640, 340))
    parts_wide, parts_narrow = (_part_forest(f, scale, rules.slice_margin, width) for width in (640, 340))
    asked = int(f.get("golden_asked") or 0)
    return GatePage(
        loop=model.loop,
        version=model.version,
        state=str(model.state),
        outcome=report.OUTCOMES.get(outcome, "not judged yet"),
        tone=_TONES.get(outcome, "watch"),
        mark=_MARKS.get(outcome, "candidate"),
        because=report.reason(verdict),
        asked=report.rule(f) if f.get("rival") else "",
        rival=f.get("rival"),
        power=str(f.get("power") or ""),
        looked=report.looked(f) if f.get("n") else "",
        mind=list(f.get("mind") or ()),
        facts=_facts(f, scale),
        metrics=[_metric(one, f) for one in f.get("metrics") or ()],
        wide=wide,
        narrow=narrow,
        parts=[_part(one, scale) for one in f.get("slices") or ()],
        parts_said=_parts_said(f, rules),
        parts_wide=parts_wide,
        parts_narrow=parts_narrow,
        sure=[_sure(who, one) for who, one in (f.get("calibration") or {}).items()],
        reliability=charts.reliability(_reliability(f)),
        golden=list(f.get("golden") or ()),
        golden_said=f"{f.get('golden_right', 0)} of {words.counted(asked, 'case')} answered as expected."
        if asked
        else "",
    )


def pictures(model: Model, rules: GateConfig) -> dict[str, str]:
    """Return the drawings of a decision as files that stand alone: name -> SVG."""
    drawn = page(model, rules)
    found = {"differences": drawn.wide, "parts": drawn.parts_wide, "reliability": drawn.reliability}
    return {name: _alone(svg) for name, svg in found.items() if svg}


_STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #57615a; } .label { fill: #1c2620; font-size: 13px; } .decisive { font-weight: 650; }
line, path { fill: none; } .grid { stroke: #e4ded1; } .zero { stroke: #1c2620; } .reference { stroke: #1b6045; stroke-dasharray: 2 4; }
.whisker { stroke: #1b6045; stroke-width: 2; } .whisker.harmed { stroke: #a2321d; } .whisker.faint { stroke: #868d82; }
.band { fill: #e3eee5; } .dot { fill: #868d82; } .dot.decisive, .dot.own { fill: #1b6045; } .dot.harmed { fill: #a2321d; }
.line { stroke: #868d82; stroke-width: 2; } .line.own { stroke: #1b6045; } .dot.other { fill: #fffdf8; stroke: #868d82; stroke-width: 2; }
</style>"""


#: What XML cannot hold, and a column may.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def _alone(svg: Markup) -> str:
    head, _, rest = str(svg).partition(">")
    drawn = f'{head} xmlns="http://www.w3.org/2000/svg">{_STYLE}{rest}\n'
    return _CONTROL.sub(" ", drawn)


def _decisive(f: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((one for one in f.get("metrics") or () if one["name"] == f.get("metric")), {})


def _scale(f: Mapping[str, Any]) -> Scale:
    return Scale(bool(_decisive(f).get("binary")))


def _metric(one: Mapping[str, Any], f: Mapping[str, Any]) -> MetricRow:
    scale = Scale(bool(one["binary"]))
    gap, low, high = one["difference"], one["low"], one["high"]
    return MetricRow(
        name=words.metric(one["name"]),
        means=one["means"],
        candidate=scale.text(one["candidate"]),
        champion="–" if one["champion"] is None else scale.text(one["champion"]),
        difference="–" if gap is None else scale.difference(gap),
        between=charts.between(low, high, scale),
        picture=Markup("") if gap is None else charts.gap(gap, low, high),
        decides=one["name"] == f.get("metric"),
        less=not one["larger_is_better"],
    )


def _metric_forest(f: Mapping[str, Any], scale: Scale, width: int) -> Markup:
    """Draw the metrics that are of one kind with the deciding one."""
    decisive = _decisive(f)
    alike = [one for one in f.get("metrics") or () if one is decisive or (one["binary"] and decisive.get("binary"))]
    rows = [
        charts.Difference(words.metric(one["name"]), one["difference"], one["low"], one["high"], one is decisive)
        for one in alike
        if one["difference"] is not None
    ]
    return charts.forest(rows, scale, f.get("margin"), width)


def _part_forest(f: Mapping[str, Any], scale: Scale, margin: float, width: int) -> Markup:
    rows = [
        charts.Difference(
            f"{one['slice']}: {one['value']}",
            one["difference"],
            one["low"],
            one["high"],
            tone="harmed" if one["harmed"] else "" if one["judged"] else "faint",
        )
        for one in (f.get("slices") or ())[:DRAWN]
    ]
    return charts.forest(rows, scale, margin, width, "Difference to the champion on each part")


def _part(one: Mapping[str, Any], scale: Scale) -> PartRow:
    said = "certainly worse" if one["harmed"] else "" if one["judged"] else "too few rows to judge"
    return PartRow(
        slice=one["slice"],
        value=one["value"],
        rows=words.count(one["n"]),
        candidate=scale.text(one["candidate"]),
        champion=scale.text(one["champion"]),
        difference=scale.difference(one["difference"]),
        between=charts.between(one["low"], one["high"], scale),
        p="–" if one["p"] is None else _p(one["p"]),
        tone="harmed" if one["harmed"] else "" if one["judged"] else "faint",
        said=said,
    )


def _parts_said(f: Mapping[str, Any], rules: GateConfig) -> str:
    found, judged = int(f.get("slices_found") or 0), int(f.get("slices_judged") or 0)
    if not found:
        return ""
    margin = _scale(f).difference(rules.slice_margin).lstrip("+")
    return (
        f"{judged} of {words.counted(found, 'part')} have rows enough to be judged. A part that is certainly worse by "
        f"more than {margin} turns the model away. The chance of harm by accident (p) is corrected for their number."
    )


def _sure(who: str, one: Mapping[str, Any]) -> Sure:
    return Sure(who, who == "candidate", f"{one['ece']:.3f}", f"{one['brier']:.3f}", f"{one['log_loss']:.3f}")


def _reliability(f: Mapping[str, Any]) -> list[charts.Reliability]:
    found: Mapping[str, Mapping[str, Any]] = f.get("calibration") or {}
    return [
        charts.Reliability(who, [(b["sure"], b["right"], b["n"]) for b in one["bins"]], who == "candidate")
        for who, one in found.items()
    ]


def _facts(f: Mapping[str, Any], scale: Scale) -> list[tuple[str, str, str]]:
    """List figures with what they mean, leaving out what was not measured."""
    table: list[tuple[str, Any, Any, str]] = [
        ("Rows judged", f.get("n") or None, words.count, "held out, never trained on"),
        ("Groups", f.get("groups"), words.count, "rows of a group count as one draw"),
        ("Confidence", f.get("level"), lambda x: words.percent(x, 2 if x > 0.99 else 0), "of the interval"),
        ("Answered better", f.get("better"), words.count, "rows on which only this one is better"),
        ("Answered worse", f.get("worse"), words.count, "rows on which the champion is better"),
        ("McNemar p", f.get("mcnemar_p"), _p, "chance of such disagreement between equals"),
        ("Detectable effect", f.get("minimum_detectable"), lambda x: scale.difference(x).lstrip("+"), "smallest difference these rows could show"),
        ("Earlier looks", f.get("looks"), words.count, "candidates judged on mostly the same rows"),
        ("Answer time", f.get("latency_ms"), words.milliseconds, "mean, one input at a time"),
        ("Artifact", f.get("size_mb"), lambda x: words.size(x * 1e6), "on disk"),
    ]  # fmt: skip
    return [(name, write(value), why) for name, value, write, why in table if value is not None]


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
