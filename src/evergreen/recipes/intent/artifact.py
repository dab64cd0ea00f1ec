"""What a training leaves: the graph, the vocabulary for phones, the models that vote, and the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import msgspec

from evergreen.core.errors import JobFailed
from evergreen.core.recipe import Job
from evergreen.core.records import Json
from evergreen.recipes.intent import coreml, ensemble, graph, manifest, predictor, prove, voices
from evergreen.recipes.intent.described import Described
from evergreen.recipes.intent.options import IntentOptions
from evergreen.recipes.intent.training import Fitted

FEATURES = "features.json"


def write(options: IntentOptions, fitted: Fitted, job: Job, started: float) -> Mapping[str, Json]:
    """Write everything into `job.out` and return the details. Raises `JobFailed` if the graph decides otherwise."""
    described = fitted.described
    job.report("export", 0, 2, {})
    graph.write(described, job.out / predictor.GRAPH)
    opened = predictor.Graph(predictor.session((job.out / predictor.GRAPH).read_bytes()), described.answers)
    proved = prove.prove(fitted, opened, job.seed)
    opened.close()
    job.report("export", 1, 2, {})
    _vocabulary(described, job.out / FEATURES)
    together = ensemble.build(options, fitted, job)
    for key in together.members:
        _keep(job.uploads[key], job.out / "members" / key)
    details: dict[str, Json] = {**fitted.details, "onnx_identical": True, "decisions_compared": proved}
    if together.uploads:
        details |= {
            "uploads": together.uploads,
            "base_weight": together.base_weight,
            "ensemble": dict(together.accuracy),
        }
    details["coreml"] = _coreml(options, described, job.out / "exports")
    details["seconds"] = round(perf_counter() - started, 2)
    manifest.write(
        job.out,
        {
            "base": list(described.answers),
            "answers": list(described.answers),
            "outside": described.outside if described.limit is not None else None,
            "base_weight": together.base_weight,
            "members": [
                {"id": key, "weight": weight, "outside": described.outside} for key, weight in together.members.items()
            ],
            "options": options.model_dump(mode="json"),
            "details": details,
            "versions": {name: version(name) for name in ("scikit-learn", "onnx", "onnxruntime", "numpy")},
        },
    )
    job.report("export", 2, 2, {})
    return details


def _keep(upload: Path, folder: Path) -> None:
    """Copy what answering needs of an upload."""
    folder.mkdir(parents=True)
    for name in (predictor.GRAPH, voices.INTERFACE):
        shutil.copyfile(upload / name, folder / name)


def _vocabulary(described: Described, path: Path) -> None:
    """Write what a phone needs to count as we do."""
    content = {
        **coreml.features(described.names),
        "norm": "l2",
        "names": list(described.names),
        "idf": [float(factor) for factor in described.idf],
    }
    path.write_bytes(msgspec.json.encode(content) + b"\n")


def _coreml(options: IntentOptions, described: Described, folder: Path) -> str | None:
    """Write the file for phones, as far as that is wanted and possible; return where it is, or why it is not."""
    if options.coreml is False:
        return None
    folder.mkdir(exist_ok=True)
    try:
        coreml.write(path=folder / "intent.mlmodel", described=described)
    except JobFailed as e:
        if options.coreml is True:
            raise
        folder.rmdir()
        return str(e)
    return "exports/intent.mlmodel"
