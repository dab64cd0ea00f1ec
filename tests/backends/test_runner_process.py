"""ProcessRunner keeps the promises of a runner, and loses nothing when processes die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from evergreen.backends.runner import process
from evergreen.backends.runner.process import ProcessRunner
from evergreen.core.config import Use
from evergreen.core.errors import ConfigError
from evergreen.core.plugins import make
from evergreen.core.ports import Progress, Store, Ticket
from evergreen.job.folder import RunFolder
from evergreen.testing.runner import RunnerContract, ended, wait_for


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made: Store = make("stores", Use(use="local"), home=tmp_path, state=tmp_path / "state")
    return made


@pytest.fixture
def runner(tmp_path: Path, store: Store) -> ProcessRunner:
    return made(tmp_path, store)


def made(folder: Path, store: Store, **options: Any) -> ProcessRunner:
    store_use = options.pop("store_use", {"use": "local"})
    built: ProcessRunner = make(
        "runners",
        Use(use="process", **options),
        store=store,
        ledger=None,
        store_use=store_use,
        home=folder,
        state=folder / "state",
    )
    return built


class TestProcessRunner(RunnerContract):
    pass


def ticket(store: Store, folder: Path, **changes: Any) -> Ticket:
    return TestProcessRunner().ticket(store, folder, **changes)


def home_recipe(folder: Path, body: str) -> dict[str, str]:
    """Write a recipe into the project's folder, where the child finds it by name."""
    (folder / "recipes.py").write_text(
        "import os, signal, sys, time\n"
        "from evergreen.testing.runner import Majority\n"
        "class Mine(Majority):\n"
        "    def train(self, job):\n" + "".join(f"        {line}\n" for line in body.splitlines())
    )
    return {"use": "recipes:Mine"}


def begun(runner: ProcessRunner, handle: str, folder: Path) -> int:
    """Wait until the child trains, return its pid."""
    wait_for(runner, handle, lambda progress: progress.phase == "training" or ended(progress))
    pid = run_folder(folder, handle).pid()
    assert pid is not None
    return pid


def run_folder(folder: Path, handle: str = "r1-1") -> RunFolder:
    return RunFolder(folder / "state" / "runs" / handle)


def gone(pid: int) -> None:
    """Wait until there is no such process, not even a zombie."""
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- The child dies -------------------------------------------------------------------------------------------


def test_a_killed_child_is_lost_and_not_begun_again(runner: ProcessRunner, store: Store, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    told = ticket(store, tmp_path, recipe={"sleep_s": 30, "mark": str(mark)})
    handle = runner.start(told)
    pid = begun(runner, handle, tmp_path)
    wait_for(runner, handle, lambda progress: (mark.exists() and mark.read_text() != "") or ended(progress))
    os.kill(pid, signal.SIGKILL)
    lost = wait_for(runner, handle, ended)
    assert (lost.state, lost.failure) == ("lost", "lost")
    gone(pid)
    assert "SIGKILL" in runner.poll(handle).error
    assert runner.start(told) == handle
    another = made(tmp_path, store)
    assert another.start(told) == handle
    assert another.poll(handle).state == "lost"
    assert "is gone" in another.poll(handle).error
    assert len(mark.read_text().split()) == 1


def test_the_end_of_the_log_is_told(runner: ProcessRunner, store: Store, tmp_path: Path) -> None:
    recipe = home_recipe(tmp_path, "print('reading'); print('loading the card')\nos._exit(9)")
    lost = wait_for(runner, runner.start(ticket(store, tmp_path, recipe=recipe)), ended)
    assert lost.state == "lost"
    assert lost.error.endswith("reading\nloading the card")
    wait_for(runner, "r1-1", lambda progress: "exit status 9" in progress.error)


def test_a_child_that_cannot_even_begin_is_lost(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "msgspec.py").write_text("raise ImportError('a broken installation')\n")
    runner = made(tmp_path, store)
    lost = wait_for(runner, runner.start(ticket(store, tmp_path)), ended)
    assert lost.state == "lost"
    assert "a broken installation" in lost.error


def test_sigterm_from_a_stranger_is_lost(runner: ProcessRunner, store: Store, tmp_path: Path) -> None:
    handle = runner.start(ticket(store, tmp_path, recipe={"sleep_s": 30}))
    os.kill(begun(runner, handle, tmp_path), signal.SIGTERM)
    assert wait_for(runner, handle, ended).state == "lost"
    wait_for(runner, handle, lambda progress: "exit status 143" in progress.error)


def test_a_child_of_the_child_does_not_keep_the_run_alive(runner: ProcessRunner, store: Store, tmp_path: Path) -> None:
    recipe = home_recipe(
        tmp_path,
        "import subprocess\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0: time.sleep(60)\n"
        "    time.sleep(60)\n"
        "subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "job.report('forked', 1, 1, {})\n"
        "time.sleep(60)",
    )
    handle = runner.start(ticket(store, tmp_path, recipe=recipe))
    wait_for(runner, handle, lambda progress: progress.phase == "forked" or ended(progress))
    pid = run_folder(tmp_path).pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    try:
        assert wait_for(runner, handle, ended).state == "lost"
    finally:
        os.killpg(pid, signal.SIGKILL)


# --- The server dies ------------------------------------------------------------------------------------------

PARENT = """
import os, subprocess, sys
from pathlib import Path

import msgspec

from evergreen.core.config import Use
from evergreen.core.errors import ConfigError
from evergreen.core.plugins import make
from evergreen.core.ports import Ticket

home, point = Path(sys.argv[1]), sys.argv[2]
given = dict(home=home, state=home / "state")
store = make("stores", Use(use="local"), **given)
runner = make("runners", Use(use="process"), store=store, ledger=None, store_use={"use": "local"}, **given)
Real = subprocess.Popen

def die():
    os.kill(os.getpid(), 9)

def dying(*args, **named):
    if point == "before":
        die()
    child = Real(*args, **named)
    if point == "after":
        die()
    return child

subprocess.Popen = dying
runner.start(msgspec.json.decode((home / "told.json").read_bytes(), type=Ticket))
print("started", flush=True)
if point == "returned":
    die()
"""


def start_in_another(folder: Path, told: Ticket, point: str = "") -> subprocess.Popen[bytes]:
    import msgspec

    (folder / "told.json").write_bytes(msgspec.json.encode(told))
    return subprocess.Popen([sys.executable, "-c", PARENT, str(folder), point], stdout=subprocess.PIPE)


@pytest.mark.parametrize("point", ["before", "after", "returned"])
def test_a_server_killed_while_it_starts_a_training(store: Store, tmp_path: Path, point: str) -> None:
    mark = tmp_path / "mark"
    told = ticket(store, tmp_path, recipe={"sleep_s": 0.5, "mark": str(mark)})
    server = start_in_another(tmp_path, told, point)
    assert server.communicate()[0] == (b"started\n" if point == "returned" else b"")
    assert server.returncode == -signal.SIGKILL
    runner = made(tmp_path, store)
    if point == "before":
        assert runner.poll("r1-1").state == "lost"
    handle = runner.start(told)
    assert handle == "r1-1"
    assert wait_for(runner, handle, ended).state == "done"
    assert len(mark.read_text().split()) == 1


def test_a_training_goes_on_without_its_server(store: Store, tmp_path: Path) -> None:
    recipe = home_recipe(tmp_path, "while not os.path.exists('go'): time.sleep(0.02)\nreturn super().train(job)")
    start_in_another(tmp_path, ticket(store, tmp_path, recipe=recipe), "returned").communicate()
    runner = made(tmp_path, store)
    assert wait_for(runner, "r1-1", lambda progress: progress.phase == "training" or ended(progress)).state == "running"
    (tmp_path / "go").touch()
    assert wait_for(runner, "r1-1", ended).state == "done"


def test_an_adopted_training_can_be_cancelled(store: Store, tmp_path: Path) -> None:
    start_in_another(tmp_path, ticket(store, tmp_path, recipe={"sleep_s": 30}), "returned").communicate()
    runner = made(tmp_path, store)
    pid = begun(runner, "r1-1", tmp_path)
    runner.cancel("r1-1")
    assert wait_for(runner, "r1-1", ended).state == "cancelled"
    gone(pid)


def test_four_servers_start_one_training(store: Store, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    told = ticket(store, tmp_path, recipe={"mark": str(mark), "sleep_s": 0.5})
    servers = [start_in_another(tmp_path, told) for _ in range(4)]
    assert [server.communicate()[0] for server in servers] == [b"started\n"] * 4
    assert wait_for(made(tmp_path, store), "r1-1", ended).state == "done"
    assert len(mark.read_text().split()) == 1


def test_polling_never_keeps_a_training_from_starting(runner: ProcessRunner, store: Store, tmp_path: Path) -> None:
    """Both look at the lock; a poll must not pass for a training."""
    told = ticket(store, tmp_path)
    run_folder(tmp_path).path.mkdir(parents=True)
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            runner.poll("r1-1")

    threads = [threading.Thread(target=poll) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        handle = runner.start(told)
        assert wait_for(runner, handle, lambda progress: progress.state == "done").state == "done"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# --- Limits ---------------------------------------------------------------------------------------------------


def test_the_watchdog_ends_a_recipe_that_never_reports(runner: ProcessRunner, store: Store, tmp_path: Path) -> None:
    recipe = home_recipe(tmp_path, "while True: pass")
    handle = runner.start(ticket(store, tmp_path, recipe=recipe, limit_s=0.5))
    pid = begun(runner, handle, tmp_path)
    late = wait_for(runner, handle, ended)
    assert (late.state, late.failure) == ("failed", "time_limit")
    gone(pid)


def test_poll_ends_a_child_whose_watchdog_does_not_bark(runner: ProcessRunner, store: Store, tmp_path: Path) -> None:
    handle = runner.start(ticket(store, tmp_path, recipe={"sleep_s": 90}, limit_s=60))
    pid = begun(runner, handle, tmp_path)
    os.kill(pid, signal.SIGSTOP)
    os.utime(run_folder(tmp_path).begun, (time.time() - 80,) * 2)
    assert runner.poll(handle).state == "running"
    os.utime(run_folder(tmp_path).begun, (time.time() - 100,) * 2)
    late = wait_for(runner, handle, ended)
    assert (late.state, late.failure) == ("failed", "time_limit")
    gone(pid)


def test_a_recipe_that_does_not_want_to_stop_is_stopped(
    runner: ProcessRunner, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_GRACE_S", 0.3)
    recipe = home_recipe(
        tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\njob.report('deaf', 1, 1, {})\ntime.sleep(60)"
    )
    handle = runner.start(ticket(store, tmp_path, recipe=recipe))
    wait_for(runner, handle, lambda progress: progress.phase == "deaf" or ended(progress))
    pid = run_folder(tmp_path).pid()
    assert pid is not None
    runner.cancel(handle)
    assert wait_for(runner, handle, ended).state == "cancelled"
    gone(pid)


def test_the_memory_limit(store: Store, tmp_path: Path) -> None:
    runner = made(tmp_path, store, memory_mb=512)
    recipe = home_recipe(tmp_path, "bytearray(2**30)")
    failed = wait_for(runner, runner.start(ticket(store, tmp_path, recipe=recipe)), ended)
    assert (failed.state, failed.failure) == ("failed", "user_code")
    assert "ran out of memory" in failed.error


@pytest.mark.parametrize("said", [{"nice": 15}, {}], ids=["by settings", "by a variable"])
def test_how_the_child_lives(
    store: Store, tmp_path: Path, said: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands back, in a session of its own, in the project's folder, with bounded threads."""
    monkeypatch.setenv("EVERGREEN_NICE", "3" if said else "15")
    recipe = home_recipe(
        tmp_path,
        "super().train(job)\n"
        "return {'nice': os.nice(0), 'policy': os.sched_getscheduler(0), 'cwd': os.getcwd(), 'threads': job.threads,"
        " 'omp': os.environ['OMP_NUM_THREADS'], 'leader': os.getsid(0) == os.getpid(), 'stdin': sys.stdin.read()}",
    )
    runner = made(tmp_path, store, threads=3, **said)
    done = wait_for(runner, runner.start(ticket(store, tmp_path, recipe=recipe)), ended)
    assert done.state == "done", done
    expected = {"nice": 15, "policy": os.SCHED_BATCH, "cwd": str(tmp_path), "threads": 3, "omp": "3"}
    expected |= {"leader": True, "stdin": ""}
    assert {name: done.details[name] for name in expected} == expected


@pytest.mark.parametrize("options", [{"nice": 20}, {"threads": 0}, {"memory_mb": 1}, {"gpu": 1}])
def test_wrong_options(store: Store, tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        made(tmp_path, store, **options)


def test_no_zombie_and_the_clock_is_told(runner: ProcessRunner, store: Store, tmp_path: Path) -> None:
    changed = threading.Event()
    runner.on_change = changed.set
    handle = runner.start(ticket(store, tmp_path))
    assert changed.wait(20)
    assert runner.poll(handle).state == "done"
    pid = run_folder(tmp_path).pid()
    assert pid is not None
    assert not os.path.exists(f"/proc/{pid}")
    assert not run_folder(tmp_path).work.exists()


def test_old_folders_are_swept_and_live_ones_are_not(runner: ProcessRunner, store: Store, tmp_path: Path) -> None:
    live = runner.start(ticket(store, tmp_path, run="live", recipe={"sleep_s": 30}))
    begun(runner, live, tmp_path)
    past = time.time() - 1000
    for n in range(25):
        old = run_folder(tmp_path, f"old{n}-1")
        (old.path / "work").mkdir(parents=True)
        old.end(Progress("done"))
        os.utime(old.path, (past + n,) * 2)
    os.utime(run_folder(tmp_path, live).path, (past - 1,) * 2)
    for run in ("old1", "old24"):
        run_folder(tmp_path, live).checkpoints(run).mkdir(parents=True)
    wait_for(runner, runner.start(ticket(store, tmp_path / "2", dataset="datasets/d1")), ended)
    left = {path.name for path in (tmp_path / "state" / "runs").iterdir()}
    assert left == {"live-1", "r1-1", *(f"old{n}-1" for n in range(6, 25))}
    assert not any(run_folder(tmp_path, f"old{n}-1").work.exists() for n in range(6, 25))
    assert [path.name for path in (tmp_path / "state" / "checkpoints").iterdir() if path.name != "live"] == ["old24"]
    assert runner.poll(live).state == "running"
    runner.cancel(live)
    assert wait_for(runner, live, ended).state == "cancelled"


def test_a_lost_attempt_is_gone_on_from(runner: ProcessRunner, store: Store, tmp_path: Path) -> None:
    recipe = home_recipe(
        tmp_path,
        "note = job.checkpoints / 'epoch'\n"
        "if not note.exists():\n"
        "    note.write_text('3')\n"
        "    os.kill(os.getpid(), 9)\n"
        "return {**super().train(job), 'from': note.read_text()}",
    )
    told = ticket(store, tmp_path, recipe=recipe)
    assert wait_for(runner, runner.start(told), ended).state == "lost"
    second = runner.start(ticket(store, tmp_path, recipe=recipe, attempt=2, dataset=told.dataset))
    done = wait_for(runner, second, ended)
    assert done.state == "done", done
    assert done.details["from"] == "3"
    assert not run_folder(tmp_path).checkpoints("r1").exists()


def test_a_store_that_the_child_cannot_open_is_configuration(store: Store, tmp_path: Path) -> None:
    runner = made(tmp_path, store, store_use={"use": "local", "pth": "shared"})
    failed = wait_for(runner, runner.start(ticket(store, tmp_path)), ended)
    assert (failed.state, failed.failure) == ("failed", "configuration")
    assert "pth" in failed.error
