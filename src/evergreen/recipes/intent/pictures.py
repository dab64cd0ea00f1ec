"""The pictures of a report, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_INK, _GREEN, _GREY = "#222222", "#2e7d4f", "#9aa39d"


def intents(figures: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw precision and recall of each intent, the weakest on top."""
    names = list(figures)
    figure, axes = _sheet(6.5, 1.2 + 0.3 * len(names))
    places = range(len(names))
    for key, colour, shift in (("precision", _GREY, -0.18), ("recall", _GREEN, 0.18)):
        axes.barh([p + shift for p in places], [figures[n][key] or 0.0 for n in names], 0.36, color=colour, label=key)
    axes.set_yticks(places, [_short(name, 32) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.5 / (1.2 + 0.3 * len(names))), ncols=2, frameon=False)
    _bare(axes)
    figure.savefig(path)


def confused(pairs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a bar for each pair of a right intent and a wrong answer, the most frequent on top."""
    figure, axes = _sheet(7.0, 1.0 + 0.3 * len(pairs))
    axes.barh(range(len(pairs)), [pair["n"] for pair in pairs], color=_GREEN)
    axes.set_yticks(range(len(pairs)), [f"{_short(p['right'], 24)} → {_short(p['answered'], 24)}" for p in pairs])
    axes.invert_yaxis()
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("texts")
    _bare(axes)
    figure.savefig(path)


def scope(curve: Sequence[Sequence[float]], here: Sequence[float], path: Path) -> None:
    """Draw the share refused of texts out of scope over that of texts with a known intent; a point marks the model."""
    figure, axes = _sheet(4.6, 4.2)
    axes.plot([x for x, _ in curve], [y for _, y in curve], color=_GREEN, linewidth=1.5)
    axes.scatter([here[0]], [here[1]], s=60, color=_INK, zorder=3)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="refused, known intent", ylabel="refused, out of scope")
    _bare(axes)
    figure.savefig(path)


def _sheet(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _bare(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _short(text: str, most: int) -> str:
    """Cut long names, and take `$` out of the hands of the formula reader."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return cut.replace("$", r"\$")
