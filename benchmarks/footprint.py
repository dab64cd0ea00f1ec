"""What Evergreen costs while nothing happens: importing it, its command line, and a server that waits for requests."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
from measure import report
from stage import LOG, quiet, serving, train, viewers

PREDICTIONS = 2_000
IDLE_S = 30.0
STARTS = 15
EVERGREEN = (sys.executable, "-m", "evergreen")
#: Packages that only training or serving needs.
HEAVY = (
    "numpy", "scipy", "pandas", "sklearn", "torch", "onnx", "onnxruntime", "matplotlib", "sqlalchemy", "alembic",
    "starlette", "uvicorn",
)  # fmt: skip
#: Ends an interpreter's work with a word on what was imported.
_COUNT = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps([len(sys.modules), [m for m in {HEAVY!r} if m in sys.modules]]), file=sys.stderr))
"""
STARTERS = {
    "python, nothing imported": "pass",
    "`import evergreen`": "import evergreen",
    "`evergreen --version`": "from evergreen.cli import main; main(['--version'])",
    "`evergreen --help`": "from evergreen.cli import main; main(['--help'])",
}


def main() -> None:
    """Measure and write `results/footprint.md`."""
    quiet()
    rows: list[list[object]] = []
    for title, code in STARTERS.items():
        modules, heavy = _imported(code)
        rows.append(
            [title, f"{1000 * _quickest(code):.0f} ms", f"{modules} modules, heavy: {', '.join(heavy) or 'none'}"]
        )
    with tempfile.TemporaryDirectory() as tmp:
        home = Path(tmp, "project")
        subprocess.run([*EVERGREEN, "init", "--template", "parima", home], stdout=subprocess.DEVNULL, check=True)
        viewers.append(home / LOG, viewers.Viewers(seed=1).decisions(2000))
        train(home)
        rows += _server(home)
    notes = (
        f"Starts: quickest of {STARTS}, to the end of the process. Heavy are: {', '.join(HEAVY)}. "
        f"Server: `evergreen up` with the PARIMA template as `evergreen init` lays it down and a champion (forest of 100 trees), after {PREDICTIONS:,} predictions; "
        f"PSS counts memory shared with other processes by its share; the processor over {IDLE_S:.0f} s without a request."
    )
    report("footprint", "Footprint", ("what", "takes", "of which"), rows, notes)


def _imported(code: str) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, "-c", _COUNT + code], capture_output=True, text=True, check=True)
    modules, heavy = json.loads(done.stderr.strip().splitlines()[-1])
    return modules, heavy


def _quickest(code: str) -> float:
    """Return the shortest wall time of several starts, in seconds."""
    took = []
    for _ in range(STARTS):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
        took.append(time.perf_counter() - begin)
    return min(took)


def _server(home: Path) -> list[list[object]]:
    with serving(home) as (server, url):
        with httpx.Client(base_url=url, timeout=30) as http:
            for question in viewers.Viewers(seed=2).questions(PREDICTIONS):
                http.post("/api/parima/predict", json=question).raise_for_status()
        time.sleep(2)
        before, begin = _cpu(server), time.monotonic()
        time.sleep(IDLE_S)
        idle = (_cpu(server) - before) / (time.monotonic() - begin)
        memory = server.memory_full_info()
        children = len(server.children(recursive=True))
        return [
            ["server, resident", f"{memory.rss / 1e6:.0f} MB", f"{memory.pss / 1e6:.0f} MB PSS, {memory.uss / 1e6:.0f} MB of its own"],
            ["server, idle", f"{100 * idle:.2f} % CPU", f"{server.num_threads()} threads, {children} child processes"],
        ]  # fmt: skip


def _cpu(server: psutil.Process) -> float:
    times = server.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
