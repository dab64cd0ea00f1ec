"""What is written about a training for people: a summary as JSON, a report as Markdown, with what changed and who contributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evergreen.core.loop import Loop
from evergreen.core.records import Dataset, Json, Model, Run, Upload
from evergreen.templates.backdoor import jobs, versions


def summary(loop: Loop, name: str, model: Model) -> dict[str, Json]:
    """Return everything about a training that a program may want to know, as plain data."""
    run = loop.ledger.get(Run, model.run) if model.run else None
    data = loop.ledger.get(Dataset, model.dataset) if model.dataset else None
    rival = loop.ledger.get(Model, model.base) if model.base else None
    named = versions.names(loop.ledger.find(Model, loop.name))
    return {
        **jobs.model_info(name, model),
        "previous": named.get(rival.id) if rival else None,
        "change": change(model),
        "dataset": None
        if data is None
        else {
            "version": data.version,
            "training_rows": data.train,
            "holdout_rows": data.holdout,
            "digest": data.digest,
        },
        "run": None if run is None else jobs.job(loop, run, name, model),
        "user_models": contributions(loop, model),
        "environment": model.details.get("environment") or {},
        "latency_ms": model.details.get("latency_ms"),
        "figures": dict(model.verdict.get("figures") or {}),
    }


def change(model: Model) -> dict[str, float]:
    """Return the difference of each score to the previous model, on the same held-out rows."""
    return {
        metric: round(score - model.rival_scores[metric], 6)
        for metric, score in model.scores.items()
        if metric in model.rival_scores
    }


def contributions(loop: Loop, model: Model) -> list[dict[str, Json]]:
    """Say of each model from a device that the training had what became of it."""
    told: Mapping[str, Mapping[str, Json]] = model.details.get("uploads") or {}
    known = {upload.id: upload for upload in loop.ledger.find(Upload, loop.name)} if told else {}
    found = []
    for id, said in told.items():
        upload, weight = known.get(id), float(said.get("weight") or 0.0)
        found.append(
            {
                "id": id,
                "name": upload.name if upload else None,
                "description": upload.description if upload else None,
                "status": "incorporated" if weight > 0 else "failed",
                "weight": weight,
                "why": said.get("why"),
            }
        )
    return sorted(found, key=lambda one: -one["weight"])


def markdown(said: Mapping[str, Json], more: str = "") -> str:
    """Write the report; `said` is a summary, `more` what the recipe itself reports."""
    parts = [
        f"# Intents {said['version']}",
        _opening(said),
        *_scores(said),
        *_user_models(said["user_models"]),
        *_exports(said["exports"]),
        *_facts(said),
    ]
    if more.strip():
        parts += ["## From the training", _lowered(more)]
    return "\n\n".join(parts) + "\n"


def _opening(said: Mapping[str, Json]) -> str:
    run = said["run"] or {}
    where = f" on {run['where']}" if run.get("where") else ""
    why = f" because of: {run['reason']}" if run.get("reason") else ""
    verdict = str(said["verdict"].get("because") or "not judged yet").rstrip(".")
    return f"Trained{where}{why}. {verdict[:1].upper()}{verdict[1:]}."


def _scores(said: Mapping[str, Json]) -> list[str]:
    if not said["scores"]:
        return ["## Scores", "Nothing was held out to measure by."]
    previous, before = said["previous"], said["compared_with"]
    head = ["score", "this model", *([f"previous ({previous})", "change"] if before else [])]
    rows = []
    for metric, score in said["scores"].items():
        row = [metric.replace("_", " "), f"{score:.4f}"]
        if before:
            row += [f"{before[metric]:.4f}", f"{said['change'][metric]:+.4f}"] if metric in before else ["–", "–"]
        rows.append(row)
    who = "neither" if before else "it"
    note = f"Measured on {said['holdout_rows']} held-out interactions that {who} has {'' if before else 'not '}learnt from."
    figures = said["figures"]
    if before and "low" in figures:
        note += f" The change in {figures['metric']} lies between {figures['low']:+.4f} and {figures['high']:+.4f} (95 % interval)."
    if not before:
        note += " There is no previous model to compare with."
    return ["## Scores", _table(head, rows), note]


def _user_models(told: Sequence[Mapping[str, Json]]) -> list[str]:
    if not told:
        return ["## Models from devices", "None was waiting."]
    rows = [
        [str(one["name"] or one["id"]), one["status"], f"{one['weight']:.3f}", str(one["why"] or "")] for one in told
    ]
    count = sum(one["status"] == "incorporated" for one in told)
    opening = f"{count} of {len(told)} became part of the ensemble."
    return ["## Models from devices", opening, _table(["file", "status", "weight", "why"], rows)]


def _exports(told: Sequence[Mapping[str, Json]]) -> list[str]:
    if not told:
        return ["## Files for phones", "None."]
    rows = [
        [
            str(one.get("file")),
            str(one.get("format")),
            f"{100 * float(one.get('agree') or 0):g} % of {one.get('rows')} rows",
        ]
        for one in told
    ]
    return ["## Files for phones", _table(["file", "format", "same decision as the trained model"], rows)]


def _facts(said: Mapping[str, Json]) -> list[str]:
    data = said["dataset"] or {}
    size = said["size_bytes"]
    facts = {
        "Interactions learnt from": data.get("training_rows"),
        "Interactions held out": data.get("holdout_rows"),
        "Size of the model": f"{size / 1e6:.1f} MB" if size else None,
        "Time for one answer": f"{said['latency_ms']:.2f} ms" if said["latency_ms"] else None,
        **{f"Version of {name}": version for name, version in said["environment"].items()},
    }
    return ["## Facts", _table(["", ""], [[key, str(value)] for key, value in facts.items() if value is not None])]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _lowered(text: str) -> str:
    """Set the headings of a report inside another one step lower."""
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.strip().splitlines())
