"""What a loop's page shows of the newest experiment. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evergreen.http.pages import words
from evergreen.http.pages.reading import Facts

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
    percent = x["metric"] == "accuracy"

    def figure(value: float | None, signed: bool = False) -> str:
        if value is None:
            return "–"
        sign = "+" if signed else ""
        return f"{100 * value:{sign}.1f}{'' if signed else ' %'}" if percent else f"{value:{sign}.4g}"

    arms = []
    for a in x["arms"]:
        ends = "" if a["low"] is None else f" ({figure(a['low'], True)} to {figure(a['high'], True)})"
        arms.append(
            ArmView(
                version=a["version"],
                share=words.whole_percent(a["share"]),
                exposed=a["exposed"],
                outcomes=a["n"],
                mean=figure(a["mean"]),
                difference=figure(a["difference"], True) + ends if a["call"] != "champion" else "–",
                call=_CALLS[a["call"]],
            )
        )
    return ExperimentView(x["state"] != "ended", x["state"], x["why"], x["by"], x["because"], arms)
