"""Intents: the document's recipe (TF-IDF and a forest), words and characters with support vectors, and ours.

    python benchmarks/intents.py [NAME …] [--data ../shared/data/intent/dev]

Each learns from the training split of a public data set and answers its test split; rows out of scope (CLINC150 has
some) are given to ours alone, since the others know nothing to do with them.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import report
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.svm import LinearSVC

from evergreen.core.recipe import Job, Row
from evergreen.recipes.intent import Intent, IntentOptions

DATA = Path(os.environ.get("EVERGREEN_TEST_DATA", Path(__file__).parents[1] / "../shared/data")) / "intent/dev"
OOS = "out_of_scope"
#: Answered one by one to measure the time of an answer.
TIMED = 200
_SERVE = """
import os, sys, json
from pathlib import Path
from evergreen.recipes.intent import Intent, IntentOptions
import psutil
predictor = Intent(IntentOptions()).load(Path(sys.argv[1]))
for text in json.load(open(sys.argv[2])): predictor.predict([{"text": text}])
print(psutil.Process().memory_info().rss / 1e6)
"""


@dataclass
class Set:
    """Texts and labels to learn from and to be judged by."""

    name: str
    train: list[tuple[str, str]]
    test: list[tuple[str, str]]


@dataclass
class Found:
    """What one way of learning reached on one set."""

    accuracy: float  #: of the best intent, on texts that have one
    auroc: float | None  #: of telling texts out of scope by how sure it is
    recall: float | None  #: share of texts out of scope that are refused
    precision: float | None  #: share of refused texts that are out of scope
    kept: float | None  #: accuracy on texts that have an intent, refused ones counted as wrong
    seconds: float
    us: float
    megabytes: float
    resident: float | None = None
    chose: str = ""  #: the kind of model that was chosen


def main() -> None:
    """Run every way on every set and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    if not given.data.is_dir():
        sys.exit(f"{given.data} is not there")
    lines = []
    for found in sets(given.data):
        if given.names and found.name not in given.names:
            continue
        for name, way in WAYS.items():
            if name.endswith("told") and all(label != OOS for _, label in found.train):
                continue
            got = way(found)
            print(found.name, name, got, flush=True)
            lines.append([found.name, name + (f" ({got.chose})" if got.chose else ""), *cells(got)])
    head = [
        "data", "way", "accuracy", "AUROC out of scope", "out of scope: refused", "… of the refused",
        "accuracy with refusing", "training CPU s", "CPU µs per answer", "artifact MB", "resident MB",
    ]  # fmt: skip
    report("intents", "Intents", head, lines, NOTE)


NOTE = (
    "`accuracy` is that of the best intent on test texts that have one; `accuracy with refusing` counts such a text as "
    "wrong if it is refused. `AUROC out of scope` is of the highest probability (the document's recipe), the largest margin "
    "(support vectors) or the probability of being in scope (ours). Times are of the processor, on one thread. `CPU µs per answer` is one text at a time through the "
    "serving predictor (ours) or scikit-learn (the others). `resident MB` is a whole Python process that has answered. "
    "`told` means that the 100 training texts labelled out of scope were given to set the limit; else it is set so that "
    "2 % of the training texts would be refused. Sets named `× 20` have 20 training texts for each intent."
)


def sets(data: Path) -> list[Set]:
    """Read the data sets, and make a small one of the larger."""
    found = []
    for name in ("clinc150", "snips7"):
        sides: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for line in (data / f"{name}.jsonl").open(encoding="utf-8"):
            row = json.loads(line)
            sides[row["split"]].append((row["text"], OOS if row["intent"] == "oos" else row["intent"]))
        found.append(Set(name, sides["train"], sides["test"]))
        found.append(Set(f"{name} × 20", few(sides["train"], 20), sides["test"]))
    return found


def few(rows: Sequence[tuple[str, str]], n: int) -> list[tuple[str, str]]:
    """Keep n rows of each label."""
    mixed, kept = random.Random(1).sample(list(rows), len(rows)), defaultdict(list)
    for text, label in mixed:
        if label == OOS or len(kept[label]) < n:
            kept[label].append((text, label))
    return [row for label in sorted(kept) for row in kept[label]]


def seed(data: Set) -> Found:
    """TF-IDF over words and pairs, 5,000 at most, and 100 trees, as the document has it."""
    return plain(
        data,
        make_pipeline(
            TfidfVectorizer(max_features=5000, ngram_range=(1, 2)), RandomForestClassifier(100, random_state=0)
        ),
        lambda model, texts: model.predict_proba(texts),
    )


def vectors(data: Set) -> Found:
    """Words, pairs and characters inside words, and linear support vectors: what is usually taken instead."""
    union = FeatureUnion(
        [
            ("words", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)),
            ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)),
        ]
    )
    return plain(data, make_pipeline(union, LinearSVC()), lambda model, texts: model.decision_function(texts))


def plain(data: Set, model: Any, scores: Callable[[Any, list[str]], Any]) -> Found:
    """Fit a scikit-learn pipeline on what has an intent, and judge it."""
    inside = [(text, label) for text, label in data.train if label != OOS]
    start = time.process_time()
    model.fit([text for text, _ in inside], [label for _, label in inside])
    seconds = time.process_time() - start
    found = scores(model, [text for text, _ in data.test])
    right = np.array([label for _, label in data.test])
    within = right != OOS
    accuracy = float((model.classes_[found.argmax(axis=1)] == right)[within].mean())
    auroc = None if within.all() else float(roc_auc_score(within, found.max(axis=1)))
    start = time.process_time()
    for text, _ in data.test[:TIMED]:
        model.predict([text])
    us = (time.process_time() - start) / TIMED * 1e6
    return Found(accuracy, auroc, None, None, None, seconds, us, len(pickle.dumps(model)) / 1e6)


def ours(told: bool, **options: Any) -> Callable[[Set], Found]:
    """Return the recipe with options as a way; `told`: with the rows labelled out of scope."""

    def way(data: Set) -> Found:
        recipe = Intent(IntentOptions.model_validate({"coreml": "false"} | options))
        with tempfile.TemporaryDirectory() as folder:
            where, out = Path(folder, "data"), Path(folder, "out")
            where.mkdir()
            out.mkdir()
            rows = [
                Row(str(i), {"text": text}, label) for i, (text, label) in enumerate(data.train) if told or label != OOS
            ]
            recipe.write(rows, where, "train")
            start = time.process_time()
            details = recipe.train(Job(where, out))
            seconds = time.process_time() - start
            predictor = recipe.load(out)
            found = judged(predictor, data, seconds)
            found.megabytes = sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 1e6
            texts = Path(folder, "texts.json")
            texts.write_text(json.dumps([text for text, _ in data.test[:TIMED]]))
            command = [sys.executable, "-c", _SERVE, str(out), str(texts)]
            found.resident = float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
            found.chose = "" if options else str(details["model"])
            return found

    return way


def judged(predictor: Any, data: Set, seconds: float) -> Found:
    """Judge a loaded model of ours."""
    texts = [text for text, _ in data.test]
    places, probabilities = predictor.decide(texts)
    answers = np.array(predictor.answers, dtype=object)
    right = np.array([label for _, label in data.test], dtype=object)
    within, refused = right != OOS, answers[places] == OOS
    k = len(answers) - (predictor.outside is not None)
    start = time.process_time()
    for text in texts[:TIMED]:
        predictor.predict([{"text": text}])
    us = (time.process_time() - start) / TIMED * 1e6
    return Found(
        accuracy=float((answers[:k][probabilities[:, :k].argmax(axis=1)] == right)[within].mean()),
        auroc=None if within.all() else float(roc_auc_score(within, 1 - probabilities[:, -1])),
        recall=None if within.all() else float(refused[~within].mean()),
        precision=None if within.all() else float((~within)[refused].mean()),
        kept=float((answers[places] == right)[within].mean()),
        seconds=seconds,
        us=us,
        megabytes=0.0,
    )


WAYS: dict[str, Callable[[Set], Found]] = {
    "the document's: TF-IDF + forest": seed,
    "words + characters + support vectors": vectors,
    "evergreen, random_forest": ours(False, model="random_forest"),
    "evergreen, auto": ours(False),
    "evergreen, auto, told": ours(True),
}


def cells(found: Found) -> list[str]:
    """Write the figures of a row."""
    shares = [found.accuracy, found.auroc, found.recall, found.precision, found.kept]
    return [
        *("–" if share is None else f"{share:.3f}" for share in shares),
        f"{found.seconds:.1f}",
        f"{found.us:,.0f}",
        f"{found.megabytes:.1f}",
        "–" if found.resident is None else f"{found.resident:.0f}",
    ]


if __name__ == "__main__":
    main()
