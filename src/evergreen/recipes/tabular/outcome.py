"""How much a logged decision counts, by what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evergreen.core.recipe import Row
from evergreen.core.records import Json
from evergreen.recipes.tabular.options import OutcomeOptions

#: A row may judge others only if its own outcome was at least this good.
GOOD_ENOUGH = 0.5
_LARGEST = 1e300


def weight(options: OutcomeOptions, value: Mapping[str, Json]) -> float:
    """Return the weight of one logged decision, from `floor` to 1.

    What was to be held is the target, or what the device had before, if that was less. The weight falls
    smoothly from 1 where at least `good` of that was held to `floor` where at most `bad` of it was.

    >>> fps = OutcomeOptions(column="after", before="before")
    >>> weight(fps, {"before": 40.0, "after": 39.0}), weight(fps, {"before": 60.0, "after": 30.0})
    (1.0, 0.05)
    """
    if options.column not in value:
        return 1.0
    after = _measurement(value[options.column])
    if after is None:
        return options.unknown
    before = _measurement(value.get(options.before)) if options.before else None
    held = min(options.target, before) if before is not None and before > 0 else options.target
    rise = (after / held - options.bad) / (options.good - options.bad)
    rise = min(1.0, max(0.0, rise))
    return options.floor + (1.0 - options.floor) * rise * rise * (3.0 - 2.0 * rise)


def judges(options: OutcomeOptions, row: Row) -> bool:
    """Say whether a row may sit in the holdout: no outcome was logged at all, or it was measured and good."""
    value = row.input
    if not isinstance(value, Mapping) or options.column not in value:
        return True
    return _measurement(value[options.column]) is not None and weight(options, value) >= GOOD_ENOUGH


def summary(options: OutcomeOptions, inputs: Sequence[Json]) -> dict[str, Json]:
    """Count what the outcome did to the weights of some rows.

    Returns `rows`, `unlogged` (no such column), `unmeasured` (an empty cell), `full` (weight 1), `lowered`,
    `bad` (weight `floor`), `mean_weight` and `mean_lowered_weight` (over measured rows below 1).
    """
    logged = [value for value in inputs if isinstance(value, Mapping) and options.column in value]
    measured = [weight(options, value) for value in logged if _measurement(value[options.column]) is not None]
    lowered = [w for w in measured if w < 1.0]
    total = sum(measured) + options.unknown * (len(logged) - len(measured)) + (len(inputs) - len(logged))
    return {
        "rows": len(inputs),
        "unlogged": len(inputs) - len(logged),
        "unmeasured": len(logged) - len(measured),
        "full": len(measured) - len(lowered),
        "lowered": len(lowered),
        "bad": sum(w <= options.floor for w in lowered),
        "mean_weight": round(total / len(inputs), 4) if inputs else 1.0,
        "mean_lowered_weight": round(sum(lowered) / len(lowered), 4) if lowered else 1.0,
    }


def sentence(options: OutcomeOptions, figures: Mapping[str, Json]) -> str:
    """Say in words what `summary` counted."""
    before = f" or what was measured before it (`{options.before}`), if that was less" if options.before else ""
    return (
        f"Examples are weighed by `{options.column}`, measured after each decision, against {options.target:g}{before}. "
        f"Of {figures['rows']:,} rows {figures['lowered']:,} count less because too little was held "
        f"(mean weight {figures['mean_lowered_weight']:.2f}; {figures['bad']:,} of them count {options.floor:g} only), "
        f"{figures['unmeasured']:,} have an empty cell and count {options.unknown:g}, {figures['full']:,} count in full, "
        f"and {figures['unlogged']:,} come from a log without that column and count in full. "
        "Only rows with a measured, good outcome (or from a log without the column) judge a model."
    )


def _measurement(cell: Json) -> float | None:
    return float(cell) if cell.__class__ in (float, int) and abs(cell) <= _LARGEST else None
