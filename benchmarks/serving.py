"""Predictions over HTTP: Evergreen beside serving frameworks, bare handlers with the same model, and the seeds' way.

Each server in turn and repeated (A B C …, A B C …), medians: in one process on one core with wrk on the other, then in two
processes on two cores. Then two hundred swaps under load, for those that can swap. Frameworks are installed by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import environments
import httpx
import measure
import psutil
from asking import asking, failed, quantile
from measure import Load, free_port, process, report, settle, table, wrk
from peers import FEATURES
from stage import body, forest, graph, lod, peer, question, quiet, serving
from swaps import Swap, checked, promote

HERE = Path(__file__).parent / "frameworks"
OURS = "Evergreen: checked, routed, counted, every answer stored"
BARE = "bare ASGI + onnxruntime: nothing checked, routed or stored"
CONNECTIONS = (1, 8)
SWAPS, PER_SECOND, CALM_S = 200, 150, 5.0


class Server(NamedTuple):
    """How to run one, in so many processes; where to ask, and what."""

    title: str
    run: Callable[[int], AbstractContextManager[tuple[psutil.Process, str]]]
    path: str = "/predict"
    body: str = body()
    most: int = 2  #: processes that it can be


class Place(NamedTuple):
    """What lies in the temporary folder."""

    home: Path  #: a project of ours, with two versions
    models: Sequence[Path]  #: the graphs of both, the first with a joblib of the same kind

    @property
    def model(self) -> Path:
        return self.models[0]


def main() -> None:
    """Measure and write `results/serving.md`."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=2)
    asked.add_argument("--seconds", type=int, default=3, help="of load in each cell")
    asked.add_argument("--swaps", type=int, default=SWAPS)
    given = asked.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as tmp:
        place = _set_up(Path(tmp))
        servers, missing = _servers(place)
        loads: dict[tuple[int, int, str], list[Load]] = {}
        for processes in (1, 2):
            _cores(processes)
            for _ in range(given.rounds):
                for server in servers:
                    if processes <= server.most:
                        _measure(loads, server, processes, given.seconds)
        _cores(1)
        swaps = [
            _swaps(OURS, place, given.swaps, _swap_ours),
            _swaps("MLServer: its load API", place, given.swaps, _swap_mlserver),
        ]
        _write(loads, [swap for swap in swaps if swap], missing, given)


def _set_up(tmp: Path) -> Place:
    place = Place(tmp / "project", [tmp / "v1", tmp / "v2"])
    for version, folder in enumerate(place.models, 1):
        lod(place.home, seed=version)
        graph(place.home, version, folder)
    forest(place.model)
    return place


def _cores(processes: int) -> None:
    """One process has a core to itself; two have two, which the load shares where there is no third."""
    more = (os.cpu_count() or 1) > 2
    measure.SERVER_CPU = "0" if processes == 1 else "0,1"
    measure.LOAD_CPU = "2" if more else "1" if processes == 1 else "0,1"


def _servers(place: Place) -> tuple[list[Server], dict[str, str]]:
    """Return who is measured, and who is not: name -> why."""
    found = [
        Server(OURS, lambda n: serving(place.home, "--processes", str(n)), "/api/lod/predict"),
        *(
            Server(title, lambda n, name=name: peer(name, place.model, processes=n))  # type: ignore[misc]
            for title, name in (
                (BARE, "bare_onnx"),
                ("Starlette + onnxruntime", "starlette_onnx"),
                ("FastAPI + onnxruntime", "fastapi_onnx"),
                ("FastAPI + scikit-learn", "fastapi_sklearn"),
            )
        ),
        Server("Flask + scikit-learn (the seeds' way)", lambda _: peer("flask_joblib", place.model), most=1),
    ]
    missing = {}
    for name, make in (
        ("bentoml", lambda bin: Server("BentoML 1.4.39 + onnxruntime", lambda n: _bentoml(bin, place, n))),
        ("litserve", lambda bin: Server("LitServe 0.2.19 + onnxruntime", lambda n: _litserve(bin, place, n))),
        (
            "mlserver",
            lambda bin: Server(
                "MLServer 1.7.1 + onnxruntime",
                lambda n: _mlserver(bin, place, n),
                "/v2/models/forest/infer",
                json.dumps(_tensor(question())),
            ),
        ),
    ):
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            found.append(make(environments.folder(name)))
        except environments.NotInstallable as e:
            missing[name] = str(e)
    return found, missing


# --- Frameworks: one server process, and what their pages say for two -------------------------------------------------


@contextmanager
def _bentoml(bin: Path, place: Place, processes: int) -> Iterator[tuple[psutil.Process, str]]:
    url = f"http://127.0.0.1:{free_port()}"
    command = [str(bin / "bentoml"), "serve", "bento:Forest", "--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    env = {"MODEL": str(place.model), "PROCESSES": str(processes), "BENTOML_DO_NOT_TRACK": "True"}
    env["BENTOML_HOME"] = str(place.home.parent / "bentoml")
    with process(command, f"{url}/readyz", cwd=HERE, **env) as server:
        yield server, url


@contextmanager
def _litserve(bin: Path, place: Place, processes: int) -> Iterator[tuple[psutil.Process, str]]:
    """One process that answers and one that computes is the least it has."""
    port = free_port()
    command = [str(bin / "python"), "lit.py", str(place.model), str(port), str(processes)]
    with process(command, f"http://127.0.0.1:{port}/health", cwd=HERE) as server:
        yield server, f"http://127.0.0.1:{port}"


@contextmanager
def _mlserver(bin: Path, place: Place, processes: int) -> Iterator[tuple[psutil.Process, str]]:
    """One process computes where it answers; more compute beside the one that answers."""
    port = free_port()
    folder = place.home.parent / "mlserver"
    _offer(folder, place.model, 1)
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_endpoint": None}
    settings |= {"parallel_workers": processes if processes > 1 else 0, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [str(bin / "mlserver"), "start", str(folder)]
    with process(command, f"http://127.0.0.1:{port}/v2/health/live", PYTHONPATH=str(HERE)) as server:
        yield server, f"http://127.0.0.1:{port}"


def _offer(folder: Path, model: Path, version: int) -> None:
    """Write down which model MLServer is to load."""
    settings = {"name": "forest", "implementation": "mls.Forest"}
    (folder / "forest").mkdir(parents=True, exist_ok=True)
    more = {"parameters": {"uri": str(model), "version": str(version)}}
    (folder / "forest" / "model-settings.json").write_text(json.dumps(settings | more))


def _tensor(row: dict[str, Any]) -> dict[str, Any]:
    """Ask as the V2 protocol does."""
    numbers = [float(row[f]) for f in FEATURES]
    return {"inputs": [{"name": "x", "shape": [1, len(numbers)], "datatype": "FP32", "data": numbers}]}


# --- Load -------------------------------------------------------------------------------------------------------------


def _measure(loads: dict[tuple[int, int, str], list[Load]], server: Server, processes: int, seconds: int) -> None:
    print(f"{server.title}, {processes} …", file=sys.stderr, flush=True)
    with server.run(processes) as (running, url):
        _wait(url + server.path, server.body)
        settle(running)
        for connections in CONNECTIONS if processes == 1 else CONNECTIONS[-1:]:
            wrk(running, url + server.path, server.body, connections=connections, seconds=1)
            load = wrk(running, url + server.path, server.body, connections=connections, seconds=seconds)
            loads.setdefault((processes, connections, server.title), []).append(load)


def _wait(url: str, body: str) -> None:
    """Wait until a server predicts."""
    deadline = time.monotonic() + 60
    while (said := httpx.post(url, content=body, headers={"content-type": "application/json"})).status_code != 200:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} answers {said.status_code}: {said.text}")
        time.sleep(0.1)


# --- Swaps ------------------------------------------------------------------------------------------------------------

#: Runs a server: where to ask, what, and what makes a version (1 or 2) answer.
Swapper = Callable[[Place], AbstractContextManager[tuple[str, Any, Callable[[int], Swap]]]]


@contextmanager
def _swap_ours(place: Place) -> Iterator[tuple[str, Any, Callable[[int], Swap]]]:
    with serving(place.home) as (_, url), httpx.Client(base_url=url, timeout=30) as http:
        yield f"{url}/api/lod/predict", question(), lambda version: promote(http, version, loop="lod")


@contextmanager
def _swap_mlserver(place: Place) -> Iterator[tuple[str, Any, Callable[[int], Swap]]]:
    bin = environments.folder("mlserver")
    with _mlserver(bin, place, 1) as (_, url), httpx.Client(base_url=url, timeout=30) as http:

        def load(version: int) -> Swap:
            _offer(place.home.parent / "mlserver", place.models[version - 1], version)
            begin = time.monotonic()
            http.post("/v2/repository/models/forest/load").raise_for_status()
            return Swap(version, begin, time.monotonic())

        yield f"{url}/v2/models/forest/infer", _tensor(question()), load


def _swaps(title: str, place: Place, times: int, swapper: Swapper) -> list[Any] | None:
    print(f"{title}: {times} swaps …", file=sys.stderr, flush=True)
    try:
        running = swapper(place)
        with running as (url, what, swap):
            _wait(url, json.dumps(what))
            swap(1)
            with asking(url, [what], per_second=PER_SECOND) as asked:
                time.sleep(CALM_S)
                done = []
                for n in range(times):
                    done.append(swap(2 - n % 2))
                    time.sleep(0.05)
                time.sleep(1)
    except environments.NotInstallable:
        return None
    first, last = done[0].asked, done[-1].done
    calm = [a for a in asked if a.done < first]
    busy = [a for a in asked if a.done >= first and a.due <= last]
    sure, wrong = checked(asked, done)
    took = statistics.median(swap.done - swap.asked for swap in done) * 1000
    figures = [quantile(part, q) for part, q in ((calm, 0.99), (busy, 0.5), (busy, 0.99))]
    return [title, len(busy), failed(busy), *figures, max(a.ms for a in busy), f"{wrong} of {sure:,}", took]


# --- The tables -------------------------------------------------------------------------------------------------------


def _write(
    loads: dict[tuple[int, int, str], list[Load]], swaps: list[list[Any]], missing: dict[str, str], given: Any
) -> None:
    rows = []
    for (processes, connections, title), runs in sorted(
        loads.items(), key=lambda item: (*item[0][:2], _median(item[1], "cpu_us"))
    ):
        floor = _median(loads[processes, connections, BARE], "cpu_us")
        cpu = _median(runs, "cpu_us")
        figures = [_median(runs, f) for f in ("per_second", "p50_ms", "p99_ms")]
        rss = _median(runs, "rss_mb")
        errors = sum(load.errors for load in runs)
        rows.append([title, processes, connections, *figures, cpu, cpu / floor, rss, errors])
    columns = (
        "server", "processes", "connections", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "× bare", "resident MB",
        "errors",
    )  # fmt: skip
    heads = (
        "server",
        "requests",
        "failed",
        "p99 ms before",
        "p50 ms",
        "p99 ms",
        "max ms",
        "wrong version",
        "a swap takes, ms",
    )
    notes = [
        f"One forest of 100 trees on five numbers (2,000 rows), exported once and run by the same onnxruntime everywhere but with "
        f"scikit-learn, which has a forest of the same size; one row a request, nothing batched, no access logs. {given.rounds} rounds of "
        f"{given.seconds} s in turn after 1 s to warm up, medians. One process: the server on one core, wrk on another; two processes: "
        "on two cores, which wrk shares where there are only two, so compare processor time rather than requests/s. Processor time and memory are of all "
        "processes of a server. LitServe has one process that answers and one that computes at least, and two of each for two; MLServer "
        "computes where it answers, and in two beside the one that answers for two. Flask's own server is one process.",
        *(f"Not measured: {name}, which cannot be installed here ({why})." for name, why in missing.items()),
        f"## {given.swaps} swaps under load",
        table(heads, swaps),
        f"Two versions by turns, one process, {PER_SECOND} requests a second from a process of its own, latency from when a request was due. "
        'Wrong version: of the requests sent after "done" and answered before the next swap was asked for. LitServe, BentoML, and those '
        "that are a handler around a model have no swap: another model needs another process.",
    ]
    report("serving", "Predictions over HTTP, side by side", columns, rows, "\n\n".join(notes))


def _median(loads: list[Load], figure: str) -> float:
    return statistics.median(getattr(load, figure) for load in loads)


if __name__ == "__main__":
    main()
