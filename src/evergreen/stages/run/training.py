"""From a reason to a candidate: queue, start, poll. Each is safe to repeat and to kill half-way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from evergreen.core.errors import AlreadyWaiting, EvergreenError, Stale, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Progress, Ticket
from evergreen.core.records import Dataset, Json, Model, Run
from evergreen.core.states import ModelState, RunState
from evergreen.stages.run import uploads

#: More attempts than any training needs, handed over from session to session.
_ATTEMPTS = 100
#: How exactly it is written down when a worker was last heard of, seconds.
_HEARD_S = 10.0


def queue(loop: Loop, data: Dataset | str, run: Run) -> None:
    """Put a run in line with its dataset and the champion it is to be compared with.

    Where there is no dataset but a reason why, the run has failed.
    """
    if isinstance(data, str):
        _refuse(loop, data, run)
        return
    champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
    base = champion.id if champion else None
    because = f"{run.why}: dataset {data.version}, {data.train} rows to learn from, {data.holdout} to judge by"
    if run.state is RunState.REQUESTED:
        loop.ledger.move(run, RunState.QUEUED, by="run", because=because, dataset=data.id, base=base)
        return
    queued = Run(id=run.id, loop=run.loop, state=RunState.QUEUED, why=run.why, dataset=data.id, base=base)
    with suppress(AlreadyWaiting):  # somebody asked in the meantime; that one will do
        loop.ledger.add(queued, by="run", because=because)


def _refuse(loop: Loop, why_not: str, run: Run) -> None:
    """Write down that a run failed before it began, so that it is not tried again at every turn."""
    if run.state is RunState.REQUESTED:
        _fail(loop, run, why_not, "configuration")
        return
    failed = Run(
        id=run.id,
        loop=run.loop,
        state=RunState.FAILED,
        why=run.why,
        error=why_not,
        failure="configuration",
        ended=loop.now(),
    )
    loop.ledger.add(failed, by="run", because=why_not)


def start(loop: Loop) -> None:
    """Hand the run in line to the runner, one at a time.

    A runner with a `tend` is given a moment to see to what it left undone.
    """
    if hasattr(loop.runner, "tend"):
        loop.runner.tend()
    run = loop.ledger.last(Run, loop.name, RunState.QUEUED)
    if run is None or loop.ledger.last(Run, loop.name, RunState.RUNNING) is not None:
        return
    try:
        handle = loop.runner.start(_ticket(loop, run, uploads.take(loop, run)))
    except (Unavailable, OSError) as e:
        _show(loop, run, {"phase": f"waiting: {_said(e)}"})
        return  # a later tick tries again
    except Exception as e:  # noqa: BLE001 - a runner may raise anything; it must not be met at every turn
        _fail(loop, run, f"could not be started: {_said(e)}", "configuration")
        return
    try:
        loop.ledger.move(
            run,
            RunState.RUNNING,
            by="run",
            because=f"attempt {run.attempt} started",
            handle=handle,
            started=loop.now(),
            progress={name: run.progress[name] for name in ("losses",) if name in run.progress},
        )
    except Stale:
        if loop.ledger.get(Run, run.id).state is RunState.CANCELLED:
            loop.runner.cancel(handle)  # withdrawn while it was being started; nobody would look after it
        raise


def poll(loop: Loop) -> None:
    """See how the running run goes, and take what it left."""
    run = loop.ledger.last(Run, loop.name, RunState.RUNNING)
    if run is None or run.handle is None:
        return
    news = _news(loop, run.handle)
    if news.state in ("running", "waiting"):
        _show(loop, run, _figures(loop, news))
    elif news.state == "done":
        _succeed(loop, run, news)
    elif news.state == "lost" or news.failure in ("lost", "preempted"):
        _lost(loop, run, news)
    elif news.state == "cancelled":
        with loop.ledger.together():
            loop.ledger.move(run, RunState.CANCELLED, by="run", because="stopped", ended=loop.now())
            uploads.give_back(loop, run)
    else:
        error, hint = news.error or "it ended without a result", news.details.get("hint")
        _fail(loop, run, f"{error.rstrip('.')}. Try: {hint}" if hint else error, news.failure or "user_code")


def _figures(loop: Loop, news: Progress) -> dict[str, Json]:
    """Return what people are shown of a run under way."""
    figures: dict[str, Json] = {
        "phase": news.phase,
        "step": news.step,
        "total": news.total,
        "metrics": dict(news.metrics),
    }
    if news.where:
        figures["where"] = news.where
    if news.left_s is not None:
        figures["left_s"] = news.left_s
    if news.heard_s is not None:  # in steps, so that not every turn has something new to write down
        heard = (loop.now() - timedelta(seconds=news.heard_s)).timestamp() // _HEARD_S * _HEARD_S
        figures["heard"] = datetime.fromtimestamp(heard, UTC).isoformat()
    return figures


def _news(loop: Loop, handle: str) -> Progress:
    """Ask the runner. What it has and cannot be read, now or ever, must not keep the run open for ever."""
    try:
        return loop.runner.poll(handle)
    except (Unavailable, OSError) as e:
        return Progress("running", phase=f"out of sight: {_said(e)}")
    except Exception as e:  # noqa: BLE001 - a runner may raise anything
        return Progress("lost", error=_said(e))


def _show(loop: Loop, run: Run, figures: Mapping[str, Json]) -> None:
    kept = {name: run.progress[name] for name in ("losses",) if name in run.progress}
    if {**kept, **figures} != run.progress:
        loop.ledger.update(run, progress={**kept, **figures})


def _said(e: Exception) -> str:
    return str(e) if isinstance(e, EvergreenError) else f"{type(e).__name__}: {e}"


def _succeed(loop: Loop, run: Run, news: Progress) -> None:
    """The run has succeeded and its candidate is there: at once, or neither."""
    last = loop.ledger.last(Model, loop.name)
    candidate = Model(
        id=loop.new_id(),
        loop=loop.name,
        state=ModelState.CANDIDATE,
        version=last.version + 1 if last else 1,
        key=news.artifact or artifact_key(run),
        run=run.id,
        dataset=run.dataset,
        base=run.base,
        scores=news.metrics,
        details=news.details,
        since=loop.now(),
    )
    with loop.ledger.together():
        progress: Mapping[str, Json] = {"phase": "done", "step": 1, "total": 1, "metrics": dict(news.metrics)}
        loop.ledger.move(
            run,
            RunState.SUCCEEDED,
            by="run",
            because=f"left candidate v{candidate.version}",
            ended=loop.now(),
            progress=progress,
        )
        loop.ledger.add(candidate, by="run", because=run.why)
        uploads.settle(loop, run, candidate)


def _lost(loop: Loop, run: Run, news: Progress) -> None:
    """Try again. A worker that handed over in good order does not count, up to a number that is surely a mistake."""
    handed_over = news.failure == "preempted"
    losses = run.progress.get("losses", 0) + (not handed_over)
    if losses > loop.config.retries or run.attempt >= _ATTEMPTS:
        _fail(loop, run, f"its worker was lost {losses} times: {news.error}", "lost")
        return
    again: dict[str, Any] = {"attempt": run.attempt + 1, "handle": None, "progress": {"losses": losses}}
    said = "handed it over" if handed_over else "was lost"
    because = f"its worker {said} ({news.error or 'no trace'}); attempt {run.attempt + 1} follows"
    loop.ledger.move(run, RunState.QUEUED, by="run", because=because, **again)


def _fail(loop: Loop, run: Run, error: str, failure: str) -> None:
    with loop.ledger.together():
        loop.ledger.move(run, RunState.FAILED, by="run", because=error, error=error, failure=failure, ended=loop.now())
        uploads.give_back(loop, run)


def _ticket(loop: Loop, run: Run, taken: Mapping[str, str]) -> Ticket:
    data = loop.ledger.get(Dataset, run.dataset or "")
    base = loop.ledger.get(Model, run.base) if run.base else None
    limit = loop.config.time_limit
    return Ticket(
        run=run.id,
        loop=loop.name,
        attempt=run.attempt,
        recipe={**loop.config.recipe.model_dump(), **run.overrides},
        dataset=data.key,
        out=artifact_key(run),
        base=base.key if base else None,
        digests={data.key: data.digest}
        | ({base.key: digest} if base and (digest := base.details.get("digest")) else {}),
        base_recipe=loop.config.recipe.model_dump(),
        seed=loop.config.seed,
        limit_s=limit.total_seconds() if limit else None,
        uploads=taken,
        slices=loop.config.gate.slices,
    )


def artifact_key(run: Run) -> str:
    """Where an attempt leaves its model: no two attempts write to the same place."""
    return f"models/{run.loop}/{run.id}-{run.attempt}"
