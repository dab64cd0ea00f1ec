"""What the gate is told: golden cases, marks of a holdout, probabilities, parts; and how it tells people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.core.errors import ConfigError, InvalidInput
from evergreen.core.recipe import Recipe, Row
from evergreen.core.records import Json, Model
from evergreen.core.states import ModelState
from evergreen.job import parts
from evergreen.stages.gate import golden, reuse
from evergreen.stages.gate.calibration import calibration
from evergreen.stages.gate.compare import power
from evergreen.stages.gate.report import markdown
from evergreen.testing.runner import Always, Majority, MajorityOptions

LABELLED = {"label": "a", "probabilities": {"a": 0.7, "b": 0.3}}


class Picky(Majority):
    """Refuses empty inputs, decides on the label, names parts by the parity of `i`."""

    def check(self, value: Json) -> Json:
        if not value:
            raise InvalidInput("input is empty", field="input")
        return value

    def decision(self, output: Json) -> Json:
        return output["label"] if isinstance(output, dict) else output

    def slices(self, row: Row) -> dict[str, str]:
        return {"parity": "even" if row.input["i"] % 2 == 0 else "odd"}

    def stratum(self, row: Row) -> str:
        return str(row.label)


def picky() -> Recipe:
    return Picky(MajorityOptions())


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "golden.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_golden_cases_are_asked_as_users_would(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"input": {"i": 1}, "expected": "a", "must": True, "name": "the usual"},
        "",
        {"input": {"i": 2}, "expected": {"probabilities": {"a": 0.7}}},
        {"input": {"i": 3}, "expected": "b"},
        {"input": {}, "expected": "a"},
    )
    answered = golden.ask(picky(), Always(LABELLED), golden.read(path))
    assert [(one.name, one.must, one.right) for one in answered] == [
        ("the usual", True, True),
        ("line 3", False, True),
        ("line 4", False, False),
        ("line 5", False, False),
    ]
    assert answered[3].answered == "error: input is empty"


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", "line 1"), ({"input": 1}, "expected"), ({"input": 1, "expected": 1, "most": True}, "most")],
)
def test_a_golden_case_that_cannot_be_read_is_named(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        golden.read(written(tmp_path, line))
    with pytest.raises(ConfigError, match="cannot be read"):
        golden.read(tmp_path / "none.jsonl")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_whatever_is_expected_is_met_by_itself(value: Json) -> None:
    (answered,) = golden.ask(Majority(MajorityOptions()), Always(value), [golden.Golden({"i": 1}, value)])
    assert answered.right


@settings(max_examples=30)
@given(st.integers(200, 2000), st.floats(0, 1))
def test_marks_tell_how_much_two_holdouts_share(n: int, share: float) -> None:
    kept = round(n * share)
    ours, theirs = [f"a{i}" for i in range(n)], [f"a{i}" for i in range(kept)] + [f"b{i}" for i in range(n - kept)]
    truth = kept / (2 * n - kept)
    assert reuse.shared(reuse.marks(ours), reuse.marks(theirs)) == pytest.approx(truth, abs=0.3)


def test_a_holdout_that_grows_a_little_is_still_the_same() -> None:
    before = [f"r{i}" for i in range(1000)]
    grown, fresh = reuse.marks([*before, *(f"n{i}" for i in range(50))]), reuse.marks(f"x{i}" for i in range(1000))
    assert reuse.looks(grown, [reuse.marks(before)] * 3) == 3
    assert reuse.looks(fresh, [reuse.marks(before)] * 3) == 0


def test_what_is_asked_for_over_all_looks_sums_to_one_chance_to_err() -> None:
    spent = [1 - reuse.confidence(0.95, k) for k in range(10_000)]
    assert sum(spent) == pytest.approx(0.05, abs=1e-5)
    assert sum(spent) < 0.05


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0, 1)), min_size=1, max_size=60))
def test_calibration_is_bounded_and_counts_every_row(said: list[tuple[float, bool, float]]) -> None:
    found = calibration([(sure, float(right), p) for sure, right, p in said])
    assert found is not None
    assert 0 <= found.ece <= 1
    assert 0 <= found.brier <= 1
    assert found.log_loss >= 0
    assert sum(b.n for b in found.bins) == len(said)


def test_what_is_believed_is_nearly_what_comes_true_when_it_says_so() -> None:
    honest = [(p / 10 + 0.05, float(i < p * 10 + 5), 0.5) for p in range(10) for i in range(100)]
    boastful = [(0.99, float(i % 2), 0.5) for i in range(100)]
    assert calibration(honest).ece < 0.001  # type: ignore[union-attr]
    assert calibration(boastful).ece == pytest.approx(0.49)  # type: ignore[union-attr]
    assert calibration([]) is None


def test_rows_are_told_apart_by_columns_labels_and_what_the_recipe_names() -> None:
    rows = [
        Row(
            f"r{i}",
            {"i": i, "who": {"age": i}, "device": "phone" if i % 3 else None},
            label=i % 2 == 0,
            group="g" if i < 4 else None,
            origin="csv",
        )
        for i in range(40)
    ]
    found = parts.slices(picky(), rows, ("device", "who.age", "label", "origin", "nothing"))
    assert list(found) == ["device", "who.age", "label", "origin", "parity"]
    assert set(found["device"]) == {"phone", "(none)"}
    assert found["who.age"][:11] == ["up to 10"] * 11
    assert set(found["who.age"]) == {"up to 10", "over 10 to 20", "over 20 to 30", "over 30"}
    assert set(found["label"]) == {"true", "false"}
    assert set(parts.groups(rows)[:4]) == {0}
    assert len(set(parts.groups(rows))) == 37
    assert parts.groups(rows[4:]) == []
    assert set(parts.strata(picky(), rows)) == {"True", "False"}
    assert parts.strata(Majority(MajorityOptions()), rows) == []
    many = [Row(str(i), {"i": i, "id": f"n{i}"}, None) for i in range(100)]
    assert len(set(parts.slices(picky(), many, ("id",))["id"])) == 40


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False), st.integers()), min_size=1, max_size=80))
def test_every_row_has_one_part(values: list[float | None]) -> None:
    rows = [Row(str(i), {"x": v, "i": i}, None) for i, v in enumerate(values)]
    found = parts.slices(Majority(MajorityOptions()), rows, ("x",))
    assert set(map(len, found.values())) <= {len(rows)}


def test_certainty_is_read_from_probabilities() -> None:
    recipe = picky()
    assert recipe.certainty(LABELLED, "b") == (0.7, False, 0.3)
    assert recipe.certainty({"label": 2, "probabilities": {"2": 0.6, "3": 0.4}}, 2.0) == (0.6, True, 0.6)
    assert recipe.certainty({"label": "z", "probabilities": {"a": 0.6}}, "z") == (0.6, False, 0.0)
    assert recipe.certainty("a", "a") is None


def test_what_could_not_be_seen_is_said_in_words() -> None:
    assert power(900, 0.02, 0.01) == (
        "With 900 rows a difference of 0.02 is found four times in five, a smaller one less often; "
        "one of 0.01 takes about 3,600 rows."
    )
    assert power(900, 0.004, 0.01).endswith("one of 0.002 takes about 3,600 rows.")
    assert power(1, None, 0.01) == ""


def test_the_report_keeps_names_from_being_markup() -> None:
    asked = [{"name": "a|b<i>", "must": True, "right": False, "expected": "x`y", "answered": "z\nz"}]
    figures = {"golden": asked, "golden_asked": 1, "golden_right": 0, "n": 0}
    verdict = {"outcome": "reject", "because": "no. Mind: this", "figures": figures}
    model = Model(id="m", loop="l", state=ModelState.REJECTED, version=2, key="k", verdict=verdict)
    said = markdown(model)
    assert said.startswith("# l v2: turned away\n\n**No.**")
    assert "| a\\|b&lt;i> | must | x\\`y | z z | WRONG |" in said
    assert "not judged it yet" in markdown(Model(id="m", loop="l", state=ModelState.CANDIDATE, version=2, key="k"))
