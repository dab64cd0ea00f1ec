"""One attempt at a ticket: fetch, train, score, check, store."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.core.errors import Corrupt, EvergreenError, JobFailed, NotFound, Unavailable
from evergreen.core.ports import Evidence, Progress, Store, Ticket
from evergreen.core.recipe import Job, Predictor, Recipe, Row, Scores
from evergreen.core.records import Json
from evergreen.job import exports, judging, parts
from evergreen.job.digest import digest, verify

#: Inputs whose answers are kept, so that the serving side can see whether it gets the same.
_PROBES = 20
_LIBRARIES = (
    "numpy",
    "scipy",
    "pandas",
    "sklearn",
    "onnx",
    "onnxruntime",
    "torch",
    "tensorflow",
    "xgboost",
    "lightgbm",
)


T = TypeVar("T")
#: How long a store may be out of reach before the attempt is lost, and the longest pause between two tries.
_PATIENCE_S, _PAUSE_S = 600.0, 5.0


class Attempt:
    """One attempt at a ticket, in a folder of its own."""

    def __init__(
        self,
        ticket: Ticket,
        store: Store,
        report: Callable[[Progress], None],
        workdir: Path,
        cancelled: Callable[[], bool],
        checkpoints: Path | None,
        stopping: Callable[[], bool],
        sleep: Callable[[float], None],
    ) -> None:
        self.ticket, self.store, self.report, self.cancelled = ticket, store, report, cancelled
        self.stopping, self.sleep = stopping, sleep
        self.dataset, self.out, self.base = workdir / "dataset", workdir / "out", workdir / "base"
        self.evaluation, self.checkpoints, self.uploads = workdir / "evaluation", checkpoints, workdir / "uploads"
        self.exported = workdir / "exports"
        self.deadline = math.inf if ticket.limit_s is None else time.monotonic() + ticket.limit_s
        self.champion: Path | None = None
        self.champion_error = ""
        self.sure: dict[str, list[tuple[float, float, float]]] = {}

    def go(self) -> Progress:
        ticket = self.ticket
        self.say("fetching")
        recipe = _recipe(ticket.recipe)
        moved = self.moved("fetching the dataset")
        self.reach(lambda: self.store.get(ticket.dataset, self.dataset, moved), late=True)
        verify(self.dataset, ticket.digests.get(ticket.dataset, ""), "the dataset")
        self.fetch_champion()
        details = self.train(recipe)

        self.say("scoring")
        rows = judging.holdout(self.dataset)
        scores, latency_ms = self.judge_candidate(recipe, rows, details)
        rivals = self.judge_champion(recipe, rows)
        evidence = Evidence(
            [row.id for row in rows],
            scores,
            rivals,
            parts.slices(recipe, rows, ticket.slices),
            parts.groups(rows),
            parts.strata(recipe, rows),
            self.sure,
        )
        if exported := exports.files(self.out):
            details["exports"] = self.check_exports(recipe, rows, exported)

        self.say("storing")
        key = f"evaluations/{ticket.run}/{ticket.mark}"
        (self.evaluation / "evidence.json").write_bytes(msgspec.json.encode(evidence))
        moved = self.moved("storing the model")
        stored = {
            ticket.out: dict(self.reach(lambda: self.store.put(ticket.out, self.out, moved))),
            key: dict(self.reach(lambda: self.store.put(key, self.evaluation))),
        }
        details |= {
            "size_bytes": sum(file.stat().st_size for file in self.out.rglob("*") if file.is_file()),
            "latency_ms": latency_ms,
            "n_holdout": len(rows),
            "evaluation": key,
            "stored": stored,
            "digest": digest(self.out),
            "environment": _environment(),
        }
        if self.champion_error:
            details["champion_error"] = self.champion_error
        return Progress("done", metrics=judging.means(scores), details=details)

    def say(self, phase: str, step: int = 0, total: int = 0, metrics: Mapping[str, float] | None = None) -> None:
        """Pass on how far it is; the place where a cancelled or overlong training stops."""
        if self.cancelled():
            raise JobFailed("The training was cancelled.", kind="cancelled")
        if time.monotonic() > self.deadline:
            raise JobFailed(f"The training took longer than {self.ticket.limit_s:g} s.", kind="time_limit")
        # JSON has no NaN: a figure that is not finite is left out.
        figures = {name: float(value) for name, value in (metrics or {}).items() if math.isfinite(value)}
        self.report(Progress("running", phase, int(step), int(total), figures))

    def moved(self, phase: str) -> Callable[[int, int], None]:
        """Tell of bytes as of steps, in KiB: a store may take its time."""
        return lambda done, total: self.say(phase, done // 1024, total // 1024)

    def reach(self, act: Callable[[], T], *, late: bool = False) -> T:
        """Do something with the store; while it is out of reach, again and again.

        With `late`, what is not there (or not whole) may still be on its way. Raises `JobFailed` (lost) in the end:
        hours of training are not thrown away for a minute without network, and a machine without any is no use.
        """
        waited, pause = 0.0, 1.0
        while True:
            try:
                return act()
            except Unavailable as e:
                if waited > _PATIENCE_S:
                    raise JobFailed(f"The store was out of reach for {waited:.0f} s: {e}", kind="lost") from e
                self.say(f"waiting for the store: {e}")
            except (NotFound, Corrupt):
                if not late or waited > self.store.staleness_s:
                    raise
                self.say("waiting for the store to show what was stored")
            self.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, _PAUSE_S)

    def fetch_uploads(self) -> dict[str, Path]:
        """Fetch the models that devices sent in; one that is lost leaves the others."""
        found = {}
        for id, key in self.ticket.uploads.items():
            try:
                self.reach(partial(self.store.get, key, self.uploads / id), late=True)
                found[id] = self.uploads / id / "model"
            except JobFailed:
                raise
            except (EvergreenError, OSError) as e:
                print(f"The uploaded model {id} could not be fetched: {sentence(e)}", file=sys.stderr)
        return found

    def fetch_champion(self) -> None:
        base = self.ticket.base
        if base is None:
            return
        try:
            self.reach(lambda: self.store.get(base, self.base), late=True)
            verify(self.base, self.ticket.digests.get(base, ""), "the champion")
            self.champion = self.base
        except JobFailed:
            raise
        except (EvergreenError, OSError) as e:
            self.champion_error = f"The champion could not be fetched: {sentence(e)}"

    def train(self, recipe: Recipe) -> dict[str, Json]:
        ticket = self.ticket
        uploads = self.fetch_uploads()
        self.say("training")
        self.out.mkdir()
        # Only a champion of the same kind is something to go on from.
        kin = ticket.base_recipe is None or ticket.base_recipe["use"] == ticket.recipe["use"]
        details = recipe.train(
            Job(
                data=self.dataset / "train",
                out=self.out,
                base=self.champion if kin else None,
                checkpoints=self.checkpoints,
                seed=ticket.seed,
                threads=ticket.threads,
                uploads=uploads,
                stopping=self.stopping,
                report=self.say,
            )
        )
        if not any(self.out.iterdir()):
            raise JobFailed("The recipe trained and left no file in job.out.")
        return dict(_plain(details or {}))

    def judge_candidate(
        self, recipe: Recipe, rows: Sequence[Row], details: dict[str, Json]
    ) -> tuple[Scores, float | None]:
        folder = self.evaluation / "report"
        folder.mkdir(parents=True)
        predictor = recipe.load(self.out)
        try:
            scores = judging.scores(recipe, predictor, rows)
            self.note_certainty("candidate", recipe, predictor, rows, details)
            latency_ms = judging.latency_ms(predictor, rows)
            probes = [(row.input, predictor.predict([row.input])[0]) for row in rows[:_PROBES]]
            (self.evaluation / "probes.json").write_bytes(msgspec.json.encode(probes))
            try:
                recipe.report(self.out, predictor, rows, folder)
            except Exception as e:  # noqa: BLE001  a good model is not lost for want of a picture
                details["report_error"] = sentence(e)
        finally:
            predictor.close()
        return scores, latency_ms

    def note_certainty(
        self, whose: str, recipe: Recipe, predictor: Predictor, rows: Sequence[Row], details: dict[str, Json]
    ) -> None:
        try:
            if found := judging.sure(recipe, predictor, rows):
                self.sure[whose] = found
        except Exception as e:  # noqa: BLE001  a model whose probabilities cannot be read can still be judged
            details["calibration_error"] = sentence(e)

    def check_exports(self, recipe: Recipe, rows: Sequence[Row], files: Sequence[Path]) -> list[dict[str, Json]]:
        """Make sure that what the model was exported to decides as the model does."""
        self.say("checking the exports")
        predictor = recipe.load(self.out)
        try:
            return exports.check(recipe, predictor, rows, files, self.exported)
        finally:
            predictor.close()

    def judge_champion(self, recipe: Recipe, rows: Sequence[Row]) -> Scores:
        """Score the champion on the same rows by the same yardstick: this recipe's `score`."""
        if self.champion is None:
            return {}
        try:
            predictor = _recipe(self.ticket.base_recipe or self.ticket.recipe).load(self.champion)
            try:
                scores = judging.scores(recipe, predictor, rows)
                self.note_certainty("champion", recipe, predictor, rows, {})
                return scores
            finally:
                predictor.close()
        except Exception as e:  # noqa: BLE001  a champion that cannot be judged must not stop its successor
            self.champion_error = f"The champion could not be scored: {sentence(e)}"
            return {}


def _recipe(said: Mapping[str, Json]) -> Recipe:
    recipe: Recipe = plugins.make("recipes", Use(**said))
    return recipe


def _environment() -> dict[str, str]:
    """Say what this ran on: Python, platform, and the versions of libraries that were used."""
    import platform

    used = {name: getattr(sys.modules.get(name), "__version__", None) for name in _LIBRARIES}
    versions = {name: str(version) for name, version in used.items() if version}
    return {"python": platform.python_version(), "platform": platform.platform(), **versions}


def _plain(value: Any) -> Any:
    """Return what JSON makes of a value; figures of array libraries become numbers, the rest text."""
    return msgspec.json.decode(
        msgspec.json.encode(value, enc_hook=lambda odd: odd.item() if hasattr(odd, "item") else str(odd))
    )


def sentence(e: BaseException) -> str:
    """Say what went wrong in one sentence."""
    return str(e) if isinstance(e, EvergreenError) else f"{type(e).__name__}: {e}"
