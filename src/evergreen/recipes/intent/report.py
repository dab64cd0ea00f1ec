"""The report of a training, for people: `report.md`, `report.json` and three pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from evergreen.core.recipe import Row
from evergreen.recipes.intent import pictures
from evergreen.recipes.intent.choose import auroc
from evergreen.recipes.intent.options import IntentOptions
from evergreen.recipes.intent.predictor import IntentPredictor

#: Intents and confused pairs that the page shows; `report.json` has all.
_SHOWN = 40
_PAIRS = 15


def write(options: IntentOptions, predictor: IntentPredictor, rows: Sequence[Row], folder: Path) -> None:
    """Measure a model on held-out rows and write what was found into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    details: Mapping[str, Any] = predictor.manifest["details"]
    if not rows:
        (folder / "report.md").write_text("# Report\n\nThere are no held-out rows to judge by.\n", encoding="utf-8")
        return
    found = figures(options, predictor, rows)
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    pictures.intents(dict(list(found["per_intent"].items())[:_SHOWN]), folder / "intents.png")
    parts = [_head(details, found), _intents(found)]
    if found["confused"]:
        pictures.confused(found["confused"][:_PAIRS], folder / "confused.png")
        parts.append(_confused(found))
    parts.append(_scope(details, found))
    if found["scope"]["curve"]:
        pictures.scope(found["scope"]["curve"], found["scope"]["here"], folder / "scope.png")
    if details.get("uploads"):
        parts.append(_ensemble(details))
    parts.append(_choice(details))
    (folder / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def figures(options: IntentOptions, predictor: IntentPredictor, rows: Sequence[Row]) -> dict[str, Any]:
    """Measure a model on held-out rows: `accuracy`, `per_intent`, `confused` (pairs of the right intent and the answer,
    the most frequent first) and `scope` (what was refused, and what other limits would refuse)."""
    import numpy as np

    outside = options.out_of_scope_label
    right = [outside if row.label == "oos" else str(row.label) for row in rows]
    places, probabilities = predictor.decide([row.input["text"] for row in rows])
    said = [predictor.answers[place] for place in places]
    wanted, given = Counter(right), Counter(said)
    hits = Counter(a for a, b in zip(right, said, strict=True) if a == b)
    names = sorted(wanted.keys() | given.keys(), key=lambda name: (_f1(hits[name], wanted[name], given[name]), name))
    pairs = Counter((a, b) for a, b in zip(right, said, strict=True) if a != b)
    return {
        "rows": len(rows),
        "accuracy": hits.total() / len(rows),
        "most_frequent": wanted.most_common(1)[0][1] / len(rows),
        "per_intent": {
            name: {
                "n": wanted[name],
                "precision": round(hits[name] / given[name], 4) if given[name] else None,
                "recall": round(hits[name] / wanted[name], 4) if wanted[name] else None,
                "f1": round(_f1(hits[name], wanted[name], given[name]), 4),
            }
            for name in names
        },
        "confused": [{"right": a, "answered": b, "n": n} for (a, b), n in pairs.most_common()],
        "scope": _figures_of_scope(predictor, np.asarray(probabilities), right, said, outside),
    }


def _f1(hits: int, wanted: int, given: int) -> float:
    return 2 * hits / (wanted + given) if wanted + given else 0.0


def _figures_of_scope(
    predictor: IntentPredictor, probabilities: Any, right: Sequence[str], said: Sequence[str], outside: str
) -> dict[str, Any]:
    """Return the shares refused of rows with a known intent and of rows out of scope, here and at other limits."""
    import numpy as np

    beyond = np.array([label == outside for label in right])
    refused = np.array([label == outside for label in said])
    found: dict[str, Any] = {
        "rows": int(beyond.sum()),
        "refused": int(refused.sum()),
        "refused_inside": float(refused[~beyond].mean()) if (~beyond).any() else None,
        "recall": float(refused[beyond].mean()) if beyond.any() else None,
        "precision": float(beyond[refused].mean()) if refused.any() and beyond.any() else None,
        "auroc": None,
        "curve": [],
        "here": None,
    }
    if predictor.outside is None or not beyond.any() or beyond.all():
        return found
    scope = 1.0 - probabilities[:, predictor.answers.index(predictor.outside)]
    found["auroc"] = round(auroc(scope[~beyond], scope[beyond]), 4)
    limits = np.quantile(scope, np.linspace(0, 1, 41))
    found["curve"] = [
        [round(float((scope[~beyond] < limit).mean()), 4), round(float((scope[beyond] < limit).mean()), 4)]
        for limit in limits
    ]
    found["here"] = [found["refused_inside"], found["recall"]]
    return found


def _head(details: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return (
        f"# Report: {_named(details['model'])}\n\n"
        f"**{found['accuracy']:.1%} right** on {found['rows']:,} held-out texts, after learning {details['n_classes']} "
        f"intents from {details['n_train']:,}.\nAlways answering the most frequent one would be right: "
        f"{found['most_frequent']:.1%}."
    )


def _intents(found: Mapping[str, Any]) -> str:
    shown = list(found["per_intent"].items())[:_SHOWN]
    rows = [[name, _share(c["precision"]), _share(c["recall"]), _share(c["f1"]), f"{c['n']:,}"] for name, c in shown]
    more = len(found["per_intent"]) - len(shown)
    return (
        "## Intents\n\n"
        "Recall is the share of an intent's texts that were answered with it; precision is how often an answer with it is "
        "right. The weakest come first.\n\n"
        + _table(["intent", "precision", "recall", "F1", "texts"], rows)
        + (f"\n\n{more} more intents are in `report.json`." if more else "")
        + "\n\n![Intents](intents.png)"
    )


def _confused(found: Mapping[str, Any]) -> str:
    rows = [[pair["right"], pair["answered"], f"{pair['n']:,}"] for pair in found["confused"][:_PAIRS]]
    return (
        "## Most confused\n\n"
        + _table(["right", "answered", "texts"], rows)
        + "\n\n![Most confused pairs](confused.png)"
    )


def _scope(details: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    scope = found["scope"]
    said = ["## Out of scope"]
    if details["limit"] is None:
        return "## Out of scope\n\nEvery text is answered with an intent."
    said.append(f"A text without a score of {details['limit']:.3f} for any intent is refused; {details['limit_why']}.")
    if scope["refused_inside"] is not None:
        said.append(f"Of the held-out texts with a known intent {scope['refused_inside']:.1%} were refused.")
    if scope["recall"] is not None:
        precision = (
            "" if scope["precision"] is None else f" {scope['precision']:.1%} of what was refused was such a text."
        )
        said.append(f"Of {scope['rows']:,} texts out of scope {scope['recall']:.1%} were refused.{precision}")
    if scope["auroc"] is not None:
        said.append(f"The area under the curve below is {scope['auroc']:.3f}.\n\n![Out of scope](scope.png)")
    return "\n\n".join(said)


def _ensemble(details: Mapping[str, Any]) -> str:
    rows = [
        [f"`{key[:12]}`", f"{told['weight']:.2f}", told["why"]]
        for key, told in sorted(details["uploads"].items(), key=lambda item: -item[1]["weight"])
    ]
    accuracy = details.get("ensemble") or {}
    said = ["## Models from devices"]
    if accuracy:
        said.append(
            f"On {accuracy['rows']:,.0f} training texts kept back the base alone is right on {accuracy['base']:.1%}, all that "
            f"vote together on {accuracy['ensemble']:.1%}. The base's weight is {details['base_weight']:.2f}."
        )
    said.append(_table(["model", "weight", "why"], rows, figures=(1,)))
    if details.get("coreml") and any(told["weight"] for told in details["uploads"].values()):
        said.append("They vote on the server. The file for phones holds the base alone.")
    return "\n\n".join(said)


def _choice(details: Mapping[str, Any]) -> str:
    said = ["## How the model was made"]
    cv: Mapping[str, Any] = details["cv"]
    if "tried" in cv:
        rows = [
            [
                _named(t["model"]) + (f", price of a mistake {t['c']:g}" if t["c"] else ""),
                f"{t['accuracy']:.1%}",
                f"{t['log_likelihood']:.4f}",
            ]
            for t in cv["tried"]
        ]
        said.append(
            f"Tried on {cv['rows']:,} training texts by {cv['folds']} parts, each answered by a model that had not seen it. "
            "The first counts unless another is clearly more accurate."
        )
        said.append(_table(["model", "right", "log-likelihood"], rows))
    else:
        said.append(f"Nothing was compared: {cv['note']}.")
    if "left_out" in details:
        few = ", ".join(f"{_cell(name)} ({n})" for name, n in details["left_out"].items())
        said.append(f"Left out, because an intent needs two texts: {few}.")
    said.append(
        f"It counts {details['vocabulary']:,} names. The ONNX graph decides as scikit-learn does on all "
        f"{details['decisions_compared']:,} texts compared, many of them shaken. Training took {details['seconds']:g} s."
    )
    return "\n\n".join(said)


def _named(kind: str) -> str:
    return {"random_forest": "random forest", "linear": "linear support vectors"}[kind]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], figures: Sequence[int] | None = None) -> str:
    """Lay out a Markdown table; the columns of figures (all but the first, unless said) stand to the right."""
    right = set(range(1, len(head)) if figures is None else figures)
    lines = [list(map(_cell, head)), *(list(map(_cell, row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rule = ["-" * max(w - 1, 1) + ":" if i in right else "-" * w for i, w in enumerate(widths)]
    laid = [
        [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [laid[0], rule, *laid[1:]])


def _cell(text: str) -> str:
    """Keep names that came from outside from breaking the table or becoming markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
