"""Reading rows: numbers, labels, sequences and outcomes, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evergreen.core.errors import InvalidInput
from evergreen.core.recipe import Datum, Row
from evergreen.recipes.tabular import Tabular, TabularOptions
from evergreen.recipes.tabular.outcome import summary, weight


def tabular(**options: Any) -> Tabular:
    return Tabular(TabularOptions.model_validate({"target": "y"} | options))


NUMBERS = tabular(features=("a", "b"), required=("a",), ranges={"a": (0, 10)}, classes=(0, 1, 2))
FREE = tabular()
STEPS = {"column": "path", "length": 3, "fields": ("velocity", "turn")}


class TestFlatRows:
    def test_text_becomes_numbers_and_the_label_its_class(self) -> None:
        datum = NUMBERS.sample({"a": "1.5", "b": " 2 ", "y": "2"})
        assert (datum.input, datum.label, datum.weight) == ({"a": 1.5, "b": 2.0}, 2, 1.0)

    @pytest.mark.parametrize("cell", ["", "?", " ", None])
    def test_a_feature_that_is_not_required_may_be_missing(self, cell: str | None) -> None:
        assert NUMBERS.sample({"a": "1", "b": cell, "y": "0"}).input["b"] in (None, "")
        assert NUMBERS.sample({"a": "1", "y": "0"}).label == 0

    def test_unknown_columns_are_kept(self) -> None:
        row = {"a": "1", "y": "0", "tiles": "3-4", "mb": "12", "ms": "0.5", "id": "007", "odd": "nan", "none": ""}
        value = NUMBERS.sample(row).input
        assert value == {"a": 1.0, "tiles": "3-4", "mb": 12, "ms": 0.5, "id": "007", "odd": "nan", "none": None}

    @pytest.mark.parametrize(
        ("change", "field", "said"),
        [
            ({"a": "NaN"}, "a", "nan"),
            ({"a": "-inf"}, "a", "inf"),
            ({"a": "11"}, "a", "11"),
            ({"a": "?"}, "a", "missing"),
            ({"b": "x1"}, "b", "x1"),
            ({"y": "3"}, "y", "3"),
            ({"y": "cat"}, "y", "cat"),
            ({"y": True}, "y", "True"),
            ({"y": [1]}, "y", "list"),
        ],
    )
    def test_what_cannot_be_used_is_named_with_its_value(self, change: dict[str, Any], field: str, said: str) -> None:
        with pytest.raises(InvalidInput, match=said) as refused:
            NUMBERS.sample({"a": "1", "b": "2", "y": "0"} | change)
        assert refused.value.field == field

    def test_more_cells_than_columns_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="more cells"):
            NUMBERS.sample({"a": "1", "y": "0", None: ["7"]})  # type: ignore[dict-item]

    def test_without_features_no_column_may_hold_nan(self) -> None:
        assert FREE.sample({"a": "1", "b": "red", "y": "0"}).input == {"a": 1, "b": "red"}
        with pytest.raises(InvalidInput) as refused:
            FREE.sample({"a": "nan", "y": "0"})
        assert refused.value.field == "a"

    def test_categories_stay_text(self) -> None:
        recipe = tabular(features=("zip",), categorical=("zip",))
        assert recipe.sample({"zip": "1e5", "y": "a"}).input == {"zip": "1e5"}

    def test_the_group_is_read_and_kept(self) -> None:
        datum = tabular(features=("a",), group="session").sample({"a": "1", "session": "42", "y": "x"})
        assert (datum.group, datum.input["session"]) == ("42", "42")


class TestLabels:
    @pytest.mark.parametrize(
        ("classes", "cell", "label"),
        [
            ((0, 1), "1", 1),
            ((0, 1), "1.0", 1),
            ((0, 1), 1.0, 1),
            (("0", "1"), "1", "1"),
            (("0", "1"), 1, "1"),
            ((True, False), "True", True),
            ((True, False), "false", False),
            ((True, False), True, True),
            ((0.5, 1.5), "0.5", 0.5),
            (("a", "b"), " a ", "a"),
            (None, "7", 7),
            (None, "up", "up"),
            (None, "007", "007"),
            (None, True, True),
            (None, 2.0, 2),
        ],
    )
    def test_a_label_is_of_its_classs_type(self, classes: Any, cell: Any, label: Any) -> None:
        read = tabular(classes=classes).sample({"a": "1", "y": cell}).label
        assert read == label
        assert type(read) is type(label)

    def test_text_in_a_typed_row_stays_text(self) -> None:
        assert FREE.sample({"a": 1.5, "y": "7"}).label == "7"

    def test_one_is_not_true(self) -> None:
        with pytest.raises(InvalidInput):
            tabular(classes=(True, False)).sample({"a": "1", "y": 1})


class TestNestedRows:
    def test_input_and_label(self) -> None:
        datum = NUMBERS.sample({"input": {"a": 1, "b": None}, "label": 2, "weight": 0.5, "group": 3})
        assert (datum.input, datum.label, datum.weight, datum.group) == ({"a": 1, "b": None}, 2, 0.5, "3")

    def test_the_label_may_come_later(self) -> None:
        assert NUMBERS.sample({"input": {"a": 1}}).label is None

    @pytest.mark.parametrize("weight", [-1, "1", True, math.nan, math.inf])
    def test_a_weight_is_a_number_from_0_up(self, weight: Any) -> None:
        with pytest.raises(InvalidInput) as refused:
            NUMBERS.sample({"input": {"a": 1}, "label": 1, "weight": weight})
        assert refused.value.field == "weight"


class TestInputs:
    @pytest.mark.parametrize("value", [None, 3, "a", [1, 2]])
    def test_only_objects(self, value: Any) -> None:
        with pytest.raises(InvalidInput) as refused:
            NUMBERS.check(value)
        assert refused.value.field == "input"

    @pytest.mark.parametrize("cell", [True, "1", math.nan, math.inf, -1, 10.5, 10**400, [1], None, ""])
    def test_only_numbers_within_the_range(self, cell: Any) -> None:
        with pytest.raises(InvalidInput) as refused:
            NUMBERS.check({"a": cell})
        assert refused.value.field == "a"

    def test_unknown_members_pass(self) -> None:
        value = {"a": 1, "more": {"deep": [1]}}
        assert NUMBERS.check(value) is value

    def test_categories_are_no_lists(self) -> None:
        recipe = tabular(features=("colour",), categorical=("colour",), required=("colour",))
        recipe.check({"colour": "red"})
        for cell in ([], 0.5, {}, None, "?"):
            with pytest.raises(InvalidInput):
                recipe.check({"colour": cell})

    def test_described_by_its_numbers_and_categories(self) -> None:
        assert NUMBERS.describe({"a": 1, "b": None, "c": 3}) == {"a": 1.0}
        assert FREE.describe({"a": 1, "b": "x", "c": " ", "y": 3}) == {"a": 1.0, "b": "x"}
        recipe = tabular(features=("colour", "n"), categorical=("colour",))
        assert recipe.describe({"colour": 7, "n": 0.5, "other": 1}) == {"colour": "7", "n": 0.5}
        assert recipe.describe({"colour": None, "n": "?"}) == {}
        assert recipe.describe_output({"label": 3.0, "confidence": 0.5}) == {"label": "3", "confidence": 0.5}


class TestSequences:
    recipe = tabular(features=("a",), sequence=STEPS)

    def test_a_list_of_points_may_be_absent_short_or_full(self) -> None:
        point = {"velocity": 1.0, "turn": 0}
        for n in range(4):
            self.recipe.check({"a": 1, "path": [point] * n})
        self.recipe.check({"a": 1})
        self.recipe.check({"a": 1, "path": None})

    @pytest.mark.parametrize(
        ("path", "field"),
        [
            ("fast", "path"),
            ([{"velocity": 1, "turn": 1}] * 4, "path"),
            ([{"velocity": 1, "turn": 1}, 3], "path[1]"),
            ([{"velocity": 1}], "path[0].turn"),
            ([{"velocity": math.nan, "turn": 1}], "path[0].velocity"),
            ([{"velocity": 1, "turn": "1"}], "path[0].turn"),
            ([{"velocity": True, "turn": 1}], "path[0].velocity"),
        ],
    )
    def test_anything_else_is_refused_at_its_place(self, path: Any, field: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            self.recipe.check({"a": 1, "path": path})
        assert refused.value.field == field

    def test_a_cell_of_a_csv_file_holds_json(self) -> None:
        row = {"a": "1", "path": '[{"velocity": 1, "turn": 2}]', "y": "x"}
        assert self.recipe.sample(row).input["path"] == [{"velocity": 1, "turn": 2}]
        with pytest.raises(InvalidInput) as refused:
            self.recipe.sample(row | {"path": "[{"})
        assert refused.value.field == "path"


class TestOutcomes:
    recipe = tabular(features=("fps",), outcome={"column": "after", "before": "fps"})

    @pytest.mark.parametrize(
        ("fps", "after", "expected"),
        [
            (120, 60, 1.0),
            (120, 57, 1.0),
            (120, 36, 0.05),
            (120, 0, 0.05),
            (30, 29, 1.0),
            (30, 15, 0.05),
            (120, 46.5, 0.525),
        ],
    )
    def test_weights_fall_with_what_was_lost(self, fps: float, after: float, expected: float) -> None:
        datum = self.recipe.sample({"fps": str(fps), "after": str(after), "y": "1"})
        assert datum.weight == pytest.approx(expected)
        assert self.recipe.judges(Row("1", datum.input, 1, datum.weight)) == (expected >= 0.5)

    def test_an_empty_outcome_counts_half_and_does_not_judge(self) -> None:
        datum = self.recipe.sample({"fps": "50", "after": "", "y": "1"})
        assert datum.weight == 0.5
        assert not self.recipe.judges(Row("1", datum.input, 1, datum.weight))

    def test_a_log_without_outcomes_counts_and_judges(self) -> None:
        datum = self.recipe.sample({"fps": "50", "y": "1"})
        assert datum.weight == 1.0
        assert self.recipe.judges(Row("1", datum.input, 1, datum.weight))

    @given(st.floats(0, 500), st.floats(0, 500), st.floats(0, 500))
    def test_more_is_never_worse(self, fps: float, one: float, other: float) -> None:
        options = self.recipe.options.outcome
        assert options is not None
        low, high = sorted((one, other))
        assert (
            0.05 <= weight(options, {"fps": fps, "after": low}) <= weight(options, {"fps": fps, "after": high}) <= 1.0
        )

    def test_the_summary_counts(self) -> None:
        options = self.recipe.options.outcome
        assert options is not None
        inputs = [{"fps": 60, "after": after} for after in (60, 58, 48, 10, None)] + [{"fps": 60}]
        found = summary(options, inputs)
        counts = {name: found[name] for name in ("rows", "full", "lowered", "bad", "unmeasured", "unlogged")}
        assert counts == {"rows": 6, "full": 2, "lowered": 2, "bad": 1, "unmeasured": 1, "unlogged": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": ("a", "y")},
        {"features": ("a", "a")},
        {"features": ("a",), "required": ("b",)},
        {"features": ("a",), "ranges": {"b": (0, 1)}},
        {"ranges": {"a": (1, 0)}},
        {"ranges": {"a": (0, 1)}, "categorical": ("a",)},
        {"recency": 0},
        {"model": "tree"},
        {"classes": (1,)},
        {"outcome": {"column": "o", "good": 0.5}},
        {"colour": 1},
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TabularOptions.model_validate({"target": "y"} | wrong)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["nan", "1e999", "?", "3", "1_0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["a", "b", "c", "y", "path", "input", "label", "weight", "group", "after", "colour"])
RECIPES = [
    NUMBERS,
    FREE,
    tabular(
        features=("a", "colour"),
        categorical=("colour",),
        sequence=STEPS,
        outcome={"column": "after", "before": "a"},
        group="group",
    ),
]


@settings(max_examples=300)
@given(st.sampled_from(RECIPES), st.dictionaries(NAMES, ANYTHING, max_size=8))
def test_whatever_comes_is_plain_json_or_refused(recipe: Tabular, row: dict[str, Any]) -> None:
    try:
        datum = recipe.sample(row)
    except InvalidInput as e:
        refused = e
    else:
        _plain(recipe, datum)
        return
    assert refused.field is not None
    assert str(refused)


def _plain(recipe: Tabular, datum: Datum) -> None:
    stored = [datum.input, datum.label, datum.weight, datum.group]
    assert msgspec.json.decode(_strict(stored)) is not None
    assert math.isfinite(datum.weight)
    again = recipe.sample({"input": datum.input, "label": datum.label, "weight": datum.weight})
    assert (again.input, again.label) == (datum.input, datum.label)
    assert all(isinstance(v, str) or math.isfinite(v) for v in recipe.describe(datum.input).values())  # type: ignore[arg-type]


def _strict(value: Any) -> bytes:
    """Encode, and make sure that no NaN or infinity was made null on the way."""

    def look(part: Any) -> None:
        assert not isinstance(part, float) or math.isfinite(part)
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            look(inner)

    look(value)
    return msgspec.json.encode(value)
