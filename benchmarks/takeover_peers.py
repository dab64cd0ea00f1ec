"""Task queues beside which `takeover.py` measures; runs in a Python of its own: `takeover_peers.py SYSTEM WHAT FOLDER LEASE`.

WHAT is `worker`, `submit` or `prepare`. The task notes each beginning in FOLDER/begun and then works for a minute.
Each queue is set up as its pages say a lost worker is to be dealt with, with LEASE seconds wherever a time is asked for.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

SYSTEM, WHAT, FOLDER, LEASE = sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])
TASK_S = 60.0


def work() -> None:
    """Note that it begins, then take its time."""
    with (FOLDER / "begun").open("a") as file:
        file.write(f"{time.time()} {os.getpid()} {os.environ['WORKER']}\n")
    time.sleep(TASK_S)


def huey() -> None:
    """A queue in SQLite: what a consumer has taken is gone from it."""
    from huey import SqliteHuey  # type: ignore[import-not-found]

    queue = SqliteHuey(filename=str(FOLDER / "huey.db"), fsync=True)
    task = queue.task(retries=3, name="work")(work)
    if WHAT == "submit":
        task()
    elif WHAT == "worker":
        queue.create_consumer(workers=1, worker_type="process").run()


def celery() -> None:
    """A queue in Redis: acknowledged late, given out again after the visibility timeout."""
    from celery import Celery  # type: ignore[import-not-found]

    app = Celery("peer", broker=os.environ["BROKER"])
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        broker_transport_options={
            "visibility_timeout": LEASE,
            "unacked_restore_interval": 1,  # instead of 10 s, every tenth time
            "unacked_restore_throttle": 1,
        },
    )
    task = app.task(name="work")(work)
    if WHAT == "submit":
        task.delay()
    elif WHAT == "worker":
        app.worker_main(["worker", "--concurrency=1", "--loglevel=ERROR", "-n", os.environ["WORKER"] + "@here"])


def procrastinate() -> None:
    """A queue in PostgreSQL: workers beat; a periodic task of one's own takes back what the silent ones had."""
    from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found]

    app = App(connector=PsycopgConnector(conninfo=os.environ["DSN"]))
    task: Any = app.task(name="work", queue="work")(work)

    @app.periodic(cron="* * * * * */2")  # the pages' example: every ten minutes
    @app.task(name="retry_stalled", queueing_lock="retry_stalled", pass_context=True, queue="care")  # type: ignore[untyped-decorator]
    async def retry_stalled(context: Any, timestamp: int) -> None:  # noqa: ARG001
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=LEASE):
            await app.job_manager.retry_job(job)

    async def go() -> None:
        async with app.open_async():
            if WHAT == "prepare":
                await app.schema_manager.apply_schema_async()
            elif WHAT == "submit":
                await task.defer_async()
            else:
                await app.run_worker_async(
                    concurrency=2, update_heartbeat_interval=LEASE / 4, stalled_worker_timeout=LEASE
                )

    asyncio.run(go())


if __name__ == "__main__":
    {"huey": huey, "celery": celery, "procrastinate": procrastinate}[SYSTEM]()
