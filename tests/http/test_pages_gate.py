"""The page of a gate decision: the verdict first, every part of it drawn and told, nothing in it markup that was not ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import pytest
from http_harness import MEMORY, PLAIN, App
from hypothesis import given
from hypothesis import strategies as st
from test_pages_routes import check

from evergreen.core.config import GateConfig
from evergreen.core.records import Model
from evergreen.core.states import ModelState
from evergreen.http.pages import charts, gate
from evergreen.http.pages.charts import Difference, Reliability
from evergreen.http.pages.render import Renderer, Visitor
from evergreen.http.pages.words import Scale
from evergreen.stages.gate.golden import Answered
from evergreen.stages.gate.rules import Case, decide

MANY = ["a\x0bb" if i < 60 else "<b>bold</b>" for i in range(100)]


def judged(rules: GateConfig, case: Case) -> Model:
    verdict = asdict(decide(rules, case))
    return Model(id="m", loop="toy", state=ModelState.REJECTED, version=2, key="k", verdict=verdict)


def full() -> tuple[Model, GateConfig]:
    rules = GateConfig(slices=("kind", "gone"), looks=1)
    mine, theirs = [1.0] * 70 + [0.0] * 30, [0.0] * 5 + [1.0] * 95
    case = Case(
        candidate={"accuracy": mine, "log_likelihood": [-0.2 - i / 99 for i in range(100)]},
        champion={"accuracy": theirs, "log_likelihood": [-0.3] * 100},
        rival=1,
        slices={"kind": MANY},
        sure={"candidate": [(0.8, r, 0.8) for r in mine], "champion": [(0.9, r, 0.9) for r in theirs]},
        golden=[Answered("<i>case</i>", False, False, "a", "b"), Answered("other", True, True, "a", "a")],
        looks=3,
        latency_ms=0.4,
        size_mb=1.2,
    )
    return judged(rules, case), rules


def shown(model: Model, rules: GateConfig) -> str:
    page = gate.page(model, rules)
    visitor = Visitor("app", locked=False)
    return Renderer()(
        "gate.html", page=page, title="t", events="", error=None, said="", root="", visitor=visitor, csrf=lambda: ""
    )


def test_everything_the_gate_found_is_on_the_page_and_escaped() -> None:
    html = shown(*full())
    check(html)
    for said in (
        ": turned away</h1>",
        "Worse, most where kind is &lt;b&gt;bold&lt;/b&gt;",
        "Mind: 3 earlier candidates were judged on mostly the same 100 rows",
        "nothing was held out by gone",
        "is found four times in five, a smaller one less often",
        "2 of 2 parts have rows enough",
        "certainly worse",
        "1 of 2 cases answered as expected.",
        "&lt;i&gt;case&lt;/i&gt;",
        "3 earlier candidates were judged on mostly these rows.",
        "share of the answers that are right",
    ):
        assert said in html, said
    assert html.count('<svg class="chart forest') == 4
    assert html.count('<svg class="chart reliability') == 1
    assert "<b>" not in html


@pytest.mark.parametrize(
    "verdict", [{}, {"outcome": "promote", "because": "better", "figures": {"metric": "accuracy", "n": 3}}]
)
def test_verdicts_of_before_and_no_verdict_are_shown_as_far_as_they_go(verdict: dict[str, Any]) -> None:
    model = Model(id="m", loop="toy", state=ModelState.CANDIDATE, version=2, key="k", verdict=verdict)
    html = shown(model, GateConfig())
    check(html)
    assert ("let through" if verdict else "not judged yet") in html


def test_the_drawings_stand_alone_as_files() -> None:
    drawn = gate.pictures(*full())
    assert set(drawn) == {"differences", "parts", "reliability"}
    for svg in drawn.values():
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"


def test_it_is_served_and_linked(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN, "gate")
    app.learn("yes")
    assert '/loops/toy/models/1/gate"' in app.http.get("/loops/toy/models/1").text
    html = app.http.get("/loops/toy/models/1/gate").text
    check(html)
    assert "First model" in html
    assert app.http.get("/loops/toy/models/9/gate").status_code == 404


share = st.floats(0, 1)
rows = st.lists(
    st.builds(
        Reliability,
        st.text('abc<&>"', max_size=9),
        st.lists(st.tuples(share, share, st.integers(1, 999))),
        st.booleans(),
    )
)


@given(rows)
def test_reliability_lies_inside_its_frame(given_: list[Reliability]) -> None:
    svg = str(charts.reliability(given_))
    if not svg:
        assert not any(row.bins for row in given_)
        return
    for dot in ElementTree.fromstring(svg).iter("circle"):
        assert 0 <= float(dot.get("cx", -1)) <= 320
        assert 0 <= float(dot.get("cy", -1)) <= 320


def test_a_part_that_is_worse_differs_in_shape_and_not_only_in_colour() -> None:
    drawn = [
        Difference("a", -0.2, -0.3, -0.1, tone="harmed"),
        Difference("a long name of a part " * 9, 0.0, tone="faint"),
    ]
    svg = ElementTree.fromstring(str(charts.forest(drawn, Scale(True), 0.02)))
    assert {dot.get("class"): dot.tag for dot in svg.iter() if (dot.get("class") or "").startswith("dot")} == {
        "dot harmed": "path",
        "dot faint": "rect",
    }
    assert all(len(label.text or "") < 40 for label in svg.iter("text"))
