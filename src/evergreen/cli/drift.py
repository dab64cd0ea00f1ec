"""`evergreen drift`: whether live traffic is still what the champion learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evergreen.cli import terminal
from evergreen.cli.opening import ConfigOption, JsonOption, LoopArgument, opened, pick


def drift(
    loop: LoopArgument = None, config: ConfigOption = Path("evergreen.toml"), as_json: JsonOption = False
) -> None:
    """Show whether live traffic is still what the champion learnt from, feature by feature."""
    from evergreen.stages import observe

    with opened(config) as project:
        said = observe.drift_report(pick(project, loop))
    if as_json:
        terminal.put_json(said)
        return
    alarm, quality = said["alarm"], said["quality"]
    if alarm:
        print(f"ALARM ({', '.join(alarm['kinds'])}), begun {terminal.ago(alarm['since'])}")
    print(f"{said['loop']}: {said['because']}")
    if quality:
        before = f", {quality['before']:.1%} before" if quality["fallen"] else ""
        print(f"{quality['share']:.1%} of {quality['judged']:,} judged answers right{before}")
    if said["features"]:
        terminal.table(
            ["of", "feature", ">PSI", ">p", "test", "most different", ""], [_row(f) for f in said["features"]]
        )


def _row(feature: dict[str, Any]) -> list[str]:
    psi, p = feature["psi"], feature["p"]
    return [
        feature["of"],
        feature["name"],
        "–" if psi is None else f"{psi:.3f}",
        "–" if p is None else f"{p:.2g}" if p >= 1e-6 else "< 1e-6",
        feature["test"] or "",
        _most(feature["bins"]),
        "drifted" if feature["drifted"] else "",
    ]


def _most(bins: list[dict[str, Any]]) -> str:
    """Name the bin whose share has changed most."""
    whole = [max(sum(b[side] for b in bins), 1) for side in ("reference", "window")]
    if not sum(b["window"] for b in bins):
        return ""
    was, now, b = max(
        ((b["reference"] / whole[0], b["window"] / whole[1], b) for b in bins), key=lambda one: abs(one[0] - one[1])
    )
    return "" if was == now else f"{b.get('label') or _span(b['from'], b['to'])}: {was:.0%} → {now:.0%}"


def _span(low: float | None, high: float | None) -> str:
    """Name a bin by its ends; one with a single value by that."""
    ends = ["…" if end is None else f"{end:.4g}" for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
