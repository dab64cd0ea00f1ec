"""What every benchmark needs: processes that are started, loaded, measured and ended; tables that say where from."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

RESULTS = Path(__file__).parent / "results"
SERVER_CPU, LOAD_CPU = "0", "1"


@dataclass(frozen=True)
class Load:
    """What a load run showed."""

    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us: float  #: processor time of all its processes per request
    rss_mb: float  #: of all its processes


@contextmanager
def process(command: Sequence[str], url: str, *, cwd: Path | None = None, **env: str) -> Iterator[psutil.Process]:
    """Run a server on its own processor until it answers; end it, and all it started, afterwards."""
    pinned = ["taskset", "-c", SERVER_CPU, *command] if shutil.which("taskset") else list(command)
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as out:
        started = subprocess.Popen(
            pinned, cwd=cwd, env={**clean, **env}, stdout=out, stderr=out, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    httpx.get(url, timeout=2)
                    break
                except httpx.TransportError:
                    if started.poll() is not None or time.monotonic() > deadline:
                        out.seek(0)
                        raise RuntimeError(f"{command} did not start: {out.read().decode()[-2000:]}") from None
                    time.sleep(0.1)
            yield psutil.Process(started.pid)
        finally:
            os.killpg(started.pid, signal.SIGTERM)
            try:
                started.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()


def wrk(server: psutil.Process, url: str, body: str, *, connections: int = 8, seconds: int = 5) -> Load:
    """Load a server with wrk from the other processor."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            f"wrk.method = 'POST'\nwrk.body = {json.dumps(body)}\nwrk.headers['Content-Type'] = 'application/json'\n"
        )
        script.flush()
        before, begin = _cpu(server), time.monotonic()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name, url]
        pinned = ["taskset", "-c", LOAD_CPU, *command] if shutil.which("taskset") else command
        said = subprocess.run(pinned, capture_output=True, text=True, check=True).stdout
        spent = _cpu(server) - before
        took = time.monotonic() - begin
    total = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    errors = (int(bad[1]) if bad else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
    return Load(
        per_second=total / took,
        p50_ms=_ms(said, "50%"),
        p99_ms=_ms(said, "99%"),
        errors=errors,
        cpu_us=spent / total * 1e6,
        rss_mb=sum(p.memory_info().rss for p in _all(server)) / 1e6,
    )


def settle(server: psutil.Process, seconds: float = 20) -> None:
    """Wait until nothing is starting any more: all processes together use little of a core."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = _cpu(server)
        time.sleep(0.5)
        if _cpu(server) - before < 0.05:
            return


def _cpu(server: psutil.Process) -> float:
    return sum(sum(p.cpu_times()[:2]) for p in _all(server))


def _all(server: psutil.Process) -> list[psutil.Process]:
    return [server, *server.children(recursive=True)]


def _ms(said: str, which: str) -> float:
    value, unit = re.search(rf"{re.escape(which)}\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def machine() -> str:
    """Describe where a figure comes from."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"{datetime.date.today().isoformat()}, load average at the end {os.getloadavg()[0]:.1f}"
    )


def report(name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], notes: str) -> Path:
    """Write a table to `results/NAME.md` and print it."""
    lines = [
        f"# {title}",
        "",
        table(columns, rows),
        "",
        notes.strip(),
        "",
        f"Machine: {machine()}.",
        f"Made by `python benchmarks/{Path(sys.argv[0]).name}`.",
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text("\n".join(lines))
    print("\n".join(lines))
    return path


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(_cell(c) for c in row) + " |" for row in rows)])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def free_port() -> int:
    """Return a port nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
