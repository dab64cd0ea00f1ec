"""A decision of the gate told to people, as Markdown: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evergreen.core.records import Model

#: What each outcome means, in words.
OUTCOMES: Mapping[str, str] = {
    "promote": "let through",
    "reject": "turned away",
    "inconclusive": "could not be told",
    "not_comparable": "could not be compared",
}
_RULES = {
    "non_inferiority": "no worse than the champion by more than {margin:g}",
    "superiority": "better than the champion by more than {margin:g}",
}


def markdown(model: Model, pictures: Mapping[str, str] | None = None) -> str:
    """Write the report; `pictures` names files to show: "differences", "parts", "reliability"."""
    shown = pictures or {}
    verdict: Mapping[str, Any] = model.verdict
    head = f"# {model.loop} v{model.version}"
    if not verdict:
        return f"{head}\n\nThe gate has not judged it yet.\n"
    figures: Mapping[str, Any] = verdict.get("figures") or {}
    parts = [
        f"{head}: {OUTCOMES.get(str(verdict.get('outcome')), 'judged')}",
        f"**{capital(reason(verdict))}.**",
        _undecided(model, str(verdict.get("outcome"))),
        _asked(figures),
        _metrics(figures, shown.get("differences", "")),
        _parts(figures, shown.get("parts", "")),
        _calibration(figures, shown.get("reliability", "")),
        _golden(figures),
        _limits(figures),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def reason(verdict: Mapping[str, Any]) -> str:
    """Return why it was decided so, without what is to be minded when reading it."""
    return str(verdict.get("because") or "").partition(". Mind: ")[0]


def capital(text: str) -> str:
    """Begin with a capital, unless the first word is a name of something."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].rstrip(":,.").isalpha() else text


def rule(figures: Mapping[str, Any]) -> str:
    """Say what was asked of the candidate."""
    asked = _RULES.get(str(figures.get("rule")), "")
    if not asked or figures.get("margin") is None:
        return ""
    level = float(figures.get("level") or 0.95)
    return f"{asked.format(margin=figures['margin'])} in {figures.get('metric')}, at {level:.4g} confidence"


def looked(figures: Mapping[str, Any]) -> str:
    """Say how often the same rows were judged by before."""
    before = int(figures.get("looks") or 0)
    if not before:
        return "No earlier candidate was judged on mostly these rows."
    one = "candidate was" if before == 1 else "candidates were"
    return f"{before} earlier {one} judged on mostly these rows."


def _undecided(model: Model, outcome: str) -> str:
    """Say what follows where nothing was decided, and what can be done."""
    if outcome not in ("inconclusive", "not_comparable"):
        return ""
    own = f'`evergreen promote {model.loop} {model.version} --force --reason "…"`'
    wanted = "More held-out rows can decide it" if outcome == "inconclusive" else "The next training is measured anew"
    return f"The champion stays. {wanted}; or you do: {own}."


def _asked(figures: Mapping[str, Any]) -> str:
    said = [f"It was to be {asked}." if figures.get("rival") and (asked := rule(figures)) else ""]
    said.append(str(figures.get("power") or ""))
    if figures.get("n"):
        said.append(looked(figures))
    if figures.get("groups"):
        said.append(f"The rows belong to {figures['groups']:,} groups, which were drawn as a whole.")
    said += [f"Mind: {mind}." for mind in figures.get("mind") or ()]
    return " ".join(one for one in said if one)


def _metrics(figures: Mapping[str, Any], picture: str) -> str:
    found: Sequence[Mapping[str, Any]] = figures.get("metrics") or ()
    if not found:
        return ""
    rows = []
    for one in found:
        decides = " (decides)" if one["name"] == figures.get("metric") else ""
        less = "" if one["larger_is_better"] else " (less is better)"
        rows.append(
            [
                f"{one['name']}{decides}{less}",
                _figure(one["candidate"]),
                _figure(one["champion"]),
                "–" if one["difference"] is None else f"{one['difference']:+.4f}",
                "–" if one["low"] is None else f"{one['low']:+.4f} to {one['high']:+.4f}",
                _chance(one["mcnemar_p"]),
            ]
        )
    head = ["metric", "candidate", "champion", "better by", "interval", "McNemar p"]
    meanings = [f"- {one['name']}: {one['means']}" for one in found if one["means"]]
    said = [f"## Measured on {figures['n']:,} held-out rows", _table(head, rows), "\n".join(meanings)]
    return "\n\n".join([*(one for one in said if one), *_shown("Differences", picture)])


def _parts(figures: Mapping[str, Any], picture: str) -> str:
    found: Sequence[Mapping[str, Any]] = figures.get("slices") or ()
    if not found:
        return ""
    rows = [
        [
            f"{one['slice']}: {one['value']}",
            f"{one['n']:,}",
            _figure(one["candidate"]),
            _figure(one["champion"]),
            f"{one['difference']:+.4f}",
            _chance(one["p"]),
            "certainly worse" if one["harmed"] else "" if one["judged"] else "too few to judge",
        ]
        for one in found
    ]
    head = ["part", "rows", "candidate", "champion", "better by", "p of harm", ""]
    said = (
        f"{figures.get('slices_judged', 0)} of {figures.get('slices_found', len(found))} parts have rows enough to be "
        "judged. p of harm is corrected for their number (Holm)."
    )
    return "\n\n".join(["## Parts", said, _table(head, rows), *_shown("Parts", picture)])


def _calibration(figures: Mapping[str, Any], picture: str) -> str:
    found: Mapping[str, Mapping[str, Any]] = figures.get("calibration") or {}
    if not found:
        return ""
    rows = [[who, f"{one['ece']:.4f}", f"{one['brier']:.4f}", f"{one['log_loss']:.4f}"] for who, one in found.items()]
    table = _table(["model", "calibration error", "Brier", "log loss"], rows)
    said = "Of answers that call themselves 80 % sure, 80 % should be right. Less is better in every column."
    return "\n\n".join(["## Probabilities", said, table, *_shown("Reliability", picture)])


def _golden(figures: Mapping[str, Any]) -> str:
    asked = int(figures.get("golden_asked") or 0)
    if not asked:
        return ""
    rows = [
        [
            one["name"],
            "must" if one["must"] else "",
            one["expected"],
            one["answered"],
            "right" if one["right"] else "WRONG",
        ]
        for one in figures.get("golden") or ()
    ]
    table = _table(["case", "", "expected", "answered", ""], rows, figures=())
    return f"## Golden cases\n\n{figures.get('golden_right', 0)} of {asked} were answered as expected.\n\n{table}"


def _limits(figures: Mapping[str, Any]) -> str:
    rows = []
    if (ms := figures.get("latency_ms")) is not None:
        rows.append(f"- an answer takes {ms:.3g} ms, one input at a time, in the serving process")
    if (mega := figures.get("size_mb")) is not None:
        rows.append(f"- the artifact has {mega:.3g} MB")
    return "## Limits\n\n" + "\n".join(rows) if rows else ""


def _figure(value: float | None) -> str:
    """Write a score; those of a column alike."""
    return "–" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.6g}"


def _chance(p: float | None) -> str:
    return "–" if p is None else f"{p:.3g}" if p >= 1e-6 else "< 1e-6"


def _shown(name: str, picture: str) -> list[str]:
    return [f"![{name}]({picture})"] if picture else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], figures: Sequence[int] | None = None) -> str:
    """Lay out a Markdown table; columns of figures (all but the first, unless said) stand to the right."""
    right = set(range(1, len(head)) if figures is None else figures)
    cells = [[_cell(text) for text in row] for row in (head, *rows)]
    line = ["-:" if i in right else "-" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [cells[0], line, *cells[1:]])


def _cell(text: object) -> str:
    """Keep names that came from outside from breaking the table or becoming markup."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
