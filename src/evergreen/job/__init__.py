"""What happens on the far side: one process, one ticket, one model. The same in every runner."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from evergreen.core import plugins
from evergreen.core.errors import ConfigError, EvergreenError, JobFailed
from evergreen.core.ports import Progress, Store, Ticket
from evergreen.job.attempt import Attempt, sentence


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
    sleep: Callable[[float], None] = time.sleep,
) -> Progress:
    """Fetch, train, score against the champion on the same holdout, store. Raises `JobFailed` only.

    The dataset is a folder with `train/` (what the recipe wrote) and `holdout/holdout.jsonl`; the recipe is
    shown `train/` alone. The artifact goes to `ticket.out`, what was measured, row by row, to the store's
    `evaluations/RUN/MARK/evidence.json`, next to the recipe's report.
    """
    try:
        return Attempt(ticket, store, report, workdir, cancelled, checkpoints, stopping, sleep).go()
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
        raise JobFailed(sentence(e)) from e


def outcome(
    ticket: Ticket,
    store: Store,
    report: Callable[[Progress], None],
    workdir: Path,
    cancelled: Callable[[], bool] = _never,
    checkpoints: Path | None = None,
    stopping: Callable[[], bool] = _never,
    sleep: Callable[[float], None] = time.sleep,
) -> Progress:
    """Do the work and say how it ended: done, failed or cancelled.

    Leaves no `workdir` behind, and `checkpoints` only where another attempt may go on from them.
    """
    again = False
    try:
        if checkpoints is not None:
            checkpoints.mkdir(parents=True, exist_ok=True)
        return work(ticket, store, report, workdir, cancelled, checkpoints, stopping, sleep)
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
