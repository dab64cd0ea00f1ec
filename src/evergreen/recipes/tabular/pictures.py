"""The pictures of a report, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_INK, _GREEN, _GREY = "#222222", "#2e7d4f", "#9aa39d"
_WRITTEN = 12  # classes up to which numbers stand in the cells


def confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]], path: Path) -> None:
    """Draw shares of each line of the confusion matrix, with the counts written in."""
    import numpy as np

    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(3.0 + 0.5 * len(labels), 12.0)
    figure, axes = _sheet(size + 0.8, size)
    axes.imshow(shares, cmap="Greens", vmin=0.0, vmax=1.0)
    names = [_short(label) for label in labels]
    axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("answered")
    axes.set_ylabel("right")
    if len(labels) <= _WRITTEN:
        for (i, j), n in np.ndenumerate(counts):
            axes.text(
                j, i, f"{n:,}", ha="center", va="center", fontsize=9, color="white" if shares[i, j] > 0.6 else _INK
            )
    figure.savefig(path)


def importance(lost: Mapping[str, float], path: Path) -> None:
    """Draw a bar for each feature, the most important on top."""
    names, values = [_short(name, 32) for name in lost], list(lost.values())
    figure, axes = _sheet(6.5, 1.2 + 0.3 * len(names))
    axes.barh(range(len(names)), values, color=[_GREEN if v > 0 else _GREY for v in values])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy lost when shuffled")
    _bare(axes)
    figure.savefig(path)


def calibration(bins: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw accuracy over confidence; on the diagonal both are the same. Larger points are more rows."""
    total = max(sum(b["n"] for b in bins), 1)
    figure, axes = _sheet(4.6, 4.2)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--")
    sure, right = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
    axes.plot(sure, right, color=_GREEN, linewidth=1)
    axes.scatter(sure, right, s=[15 + 250 * b["n"] / total for b in bins], color=_GREEN)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="right")
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


def _short(text: str, most: int = 16) -> str:
    """Cut long names, and take `$` out of the hands of the formula reader."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return cut.replace("$", r"\$")
