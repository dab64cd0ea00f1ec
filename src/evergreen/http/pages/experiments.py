"""What a loop's page shows of the newest experiment. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evergreen.http.pages import charts, words
from evergreen.http.pages.reading import Facts
from evergreen.http.pages.words import Scale

_CALLS = {"champion": "champion", "open": "not decided", "better": "better", "worse": "worse", "out": "out"}


@dataclass(frozen=True)
class ArmView:
    """One version."""

    version: int
    share: str
    exposed: int
    outcomes: int
    mean: str
    difference: str
    call: str


@dataclass(frozen=True)
class ExperimentView:
    """An experiment, running or not."""

    open: bool
    state: str
    why: str
    by: str
    because: str
    arms: Sequence[ArmView]


def view(facts: Facts) -> ExperimentView | None:
    """Describe the newest experiment; nothing where there was none."""
    x = facts.experiment
    if x is None:
        return None
    scale = Scale(x["metric"] == "accuracy")
    arms = []
    for a in x["arms"]:
        within = charts.between(a["low"], a["high"], scale)
        ahead = "" if a["difference"] is None or a["call"] == "champion" else scale.difference(a["difference"])
        arms.append(
            ArmView(
                version=a["version"],
                share=words.whole_percent(a["share"]),
                exposed=a["exposed"],
                outcomes=a["n"],
                mean=scale.text(a["mean"]) if a["mean"] is not None else "–",
                difference=f"{ahead} ({within})" if ahead and within else ahead,
                call=_CALLS[a["call"]],
            )
        )
    return ExperimentView(x["state"] != "ended", x["state"], x["why"], x["by"], x["because"], arms)
