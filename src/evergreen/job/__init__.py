"""What happens on the far side: one process, one ticket, one model. The same in every runner."""

from __future__ import annotations

import math
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, EvergreenError, JobFailed
from evergreen.core.ports import Evidence, Progress, Store, Ticket
from evergreen.core.recipe import Job, Predictor, Recipe, Row, Scores, read_rows
from evergreen.core.records import Json

_LATENCY_ROWS = 50
_LATENCY_S = 5.0
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


def _never() -> bool:
    return False


def work(
    ticket: Ticket,
    store: Store,
    report: Callable[[Progress], None],
    workdir: Path,
    cancelled: Callable[[], bool] = _never,
    checkpoints: Path | None = None,
    stopping: Callable[[], bool] = _never,
) -> Progress:
    """Fetch, train, score against the champion on the same holdout, store. Raises `JobFailed` only.

    The dataset is a folder with `train/` (what the recipe wrote) and `holdout/holdout.jsonl`; the recipe is
    shown `train/` alone. The artifact goes to `ticket.out`, what was measured, row by row, to the store's
    `evaluations/RUN/MARK/evidence.json`, next to the recipe's report.
    """
    try:
        return _Attempt(ticket, store, report, workdir, cancelled, checkpoints, stopping).go()
    except JobFailed:
        raise
    except ConfigError as e:
        raise JobFailed(str(e), kind="configuration", hint=e.hint) from e
    except EvergreenError as e:
        raise JobFailed(str(e), hint=e.hint) from e
    except MemoryError as e:
        raise JobFailed(
            "The training ran out of memory.", hint="Allow it more memory, or train on fewer samples."
        ) from e
    except SystemExit as e:
        raise JobFailed(f"The recipe ended the process (exit {e.code}) instead of returning.") from e
    except ModuleNotFoundError as e:
        name = str(ticket.recipe["use"])
        lacks = plugins.missing(f'recipe "{name}"', e, extra=name)
        raise JobFailed(str(lacks), kind="configuration", hint=None if ":" in name else lacks.hint) from e
    except Exception as e:  # a recipe may raise anything
        raise JobFailed(_sentence(e)) from e


def outcome(
    ticket: Ticket,
    store: Store,
    report: Callable[[Progress], None],
    workdir: Path,
    cancelled: Callable[[], bool] = _never,
    checkpoints: Path | None = None,
    stopping: Callable[[], bool] = _never,
) -> Progress:
    """Do the work and say how it ended: done, failed or cancelled.

    Leaves no `workdir` behind, and `checkpoints` only where another attempt may go on from them.
    """
    again = False
    try:
        if checkpoints is not None:
            checkpoints.mkdir(parents=True, exist_ok=True)
        return work(ticket, store, report, workdir, cancelled, checkpoints, stopping)
    except JobFailed as e:
        again = e.kind in ("lost", "preempted")
        tail = "".join(traceback.format_exception(e.__cause__ or e))[-4000:]
        details = {"traceback": tail, **({"hint": e.hint} if e.hint else {})}
        return Progress(
            "cancelled" if e.kind == "cancelled" else "failed", error=str(e), failure=e.kind, details=details
        )
    finally:
        shutil.rmtree(workdir, ignore_errors=True)
        if checkpoints is not None and not again:
            shutil.rmtree(checkpoints, ignore_errors=True)


class _Attempt:
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
    ) -> None:
        self.ticket, self.store, self.report, self.cancelled = ticket, store, report, cancelled
        self.stopping = stopping
        self.dataset, self.out, self.base = workdir / "dataset", workdir / "out", workdir / "base"
        self.evaluation, self.checkpoints, self.uploads = workdir / "evaluation", checkpoints, workdir / "uploads"
        self.deadline = math.inf if ticket.limit_s is None else time.monotonic() + ticket.limit_s
        self.champion: Path | None = None
        self.champion_error = ""

    def go(self) -> Progress:
        ticket = self.ticket
        self.say("fetching")
        recipe = _recipe(ticket.recipe)
        self.store.get(ticket.dataset, self.dataset, self.moved("fetching the dataset"))
        self.fetch_champion()
        details = self.train(recipe)

        self.say("scoring")
        rows = _holdout(self.dataset)
        scores, latency_ms = self.judge_candidate(recipe, rows, details)
        rivals = self.judge_champion(recipe, rows)
        evidence = Evidence([row.id for row in rows], scores, rivals)

        self.say("storing")
        key = f"evaluations/{ticket.run}/{ticket.mark}"
        (self.evaluation / "evidence.json").write_bytes(msgspec.json.encode(evidence))
        stored = {
            ticket.out: dict(self.store.put(ticket.out, self.out, self.moved("storing the model"))),
            key: dict(self.store.put(key, self.evaluation)),
        }
        details |= {
            "size_bytes": sum(file.stat().st_size for file in self.out.rglob("*") if file.is_file()),
            "latency_ms": latency_ms,
            "n_holdout": len(rows),
            "evaluation": key,
            "stored": stored,
            "environment": _environment(),
        }
        if self.champion_error:
            details["champion_error"] = self.champion_error
        return Progress("done", metrics=_means(scores), details=details)

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

    def fetch_uploads(self) -> dict[str, Path]:
        """Fetch the models that devices sent in; one that is lost leaves the others."""
        found = {}
        for id, key in self.ticket.uploads.items():
            try:
                self.store.get(key, self.uploads / id)
                found[id] = self.uploads / id / "model"
            except (EvergreenError, OSError) as e:
                print(f"The uploaded model {id} could not be fetched: {_sentence(e)}", file=sys.stderr)
        return found

    def fetch_champion(self) -> None:
        if self.ticket.base is None:
            return
        try:
            self.store.get(self.ticket.base, self.base)
            self.champion = self.base
        except (EvergreenError, OSError) as e:
            self.champion_error = f"The champion could not be fetched: {_sentence(e)}"

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
            scores = _scores(recipe, predictor, rows)
            latency_ms = _latency_ms(predictor, rows)
            probes = [(row.input, predictor.predict([row.input])[0]) for row in rows[:_PROBES]]
            (self.evaluation / "probes.json").write_bytes(msgspec.json.encode(probes))
            try:
                recipe.report(self.out, predictor, rows, folder)
            except Exception as e:  # noqa: BLE001  a good model is not lost for want of a picture
                details["report_error"] = _sentence(e)
        finally:
            predictor.close()
        return scores, latency_ms

    def judge_champion(self, recipe: Recipe, rows: Sequence[Row]) -> Scores:
        """Score the champion on the same rows by the same yardstick: this recipe's `score`."""
        if self.champion is None:
            return {}
        try:
            predictor = _recipe(self.ticket.base_recipe or self.ticket.recipe).load(self.champion)
            try:
                return _scores(recipe, predictor, rows)
            finally:
                predictor.close()
        except Exception as e:  # noqa: BLE001  a champion that cannot be judged must not stop its successor
            self.champion_error = f"The champion could not be scored: {_sentence(e)}"
            return {}


def _recipe(said: Mapping[str, Json]) -> Recipe:
    recipe: Recipe = plugins.make("recipes", Use(**said))
    return recipe


def _holdout(dataset: Path) -> list[Row]:
    file = dataset / "holdout" / "holdout.jsonl"
    return list(read_rows(file)) if file.exists() else []


def _scores(recipe: Recipe, predictor: Predictor, rows: Sequence[Row]) -> dict[str, list[float]]:
    """Score, and make sure that there is one finite figure per row and metric."""
    if not rows:
        return {}
    scores = {name: [float(figure) for figure in figures] for name, figures in recipe.score(predictor, rows).items()}
    for name, figures in scores.items():
        if len(figures) != len(rows):
            raise JobFailed(f"The recipe's score gave {len(figures)} figures of {name} for {len(rows)} rows.")
        if not all(map(math.isfinite, figures)):
            raise JobFailed(f"The recipe's score gave a figure of {name} that is not a number.")
    return scores


def _means(scores: Scores) -> dict[str, float]:
    return {name: math.fsum(figures) / len(figures) for name, figures in scores.items() if figures}


def _latency_ms(predictor: Predictor, rows: Sequence[Row]) -> float | None:
    """Measure the mean time to answer one input, after one to warm up; None without rows."""
    if not rows:
        return None
    predictor.predict([rows[0].input])
    begin, n = time.perf_counter(), 0
    for row in rows[:_LATENCY_ROWS]:
        predictor.predict([row.input])
        n += 1
        if time.perf_counter() - begin > _LATENCY_S:
            break
    return (time.perf_counter() - begin) * 1000 / n


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


def _sentence(e: BaseException) -> str:
    return str(e) if isinstance(e, EvergreenError) else f"{type(e).__name__}: {e}"
