"""Asks at a steady rate from a process of its own, and notes of every request when it was due, sent and answered, and by whom.

    python asking.py URL PER_SECOND < bodies.json

A latency counts from when a request was due, so that one slow answer does not hide how long others had to wait.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import measure

_THREADS = 8


class Asked(NamedTuple):
    """One request; times are of the monotonic clock, which all processes share."""

    due: float
    sent: float
    done: float
    status: int  #: 0 when there was no answer
    version: int  #: of the model that answered; 0 if the answer does not say

    @property
    def ms(self) -> float:
        """From when it was due to its answer."""
        return (self.done - self.due) * 1000


@contextmanager
def asking(url: str, bodies: Sequence[Any], *, per_second: float) -> Iterator[list[Asked]]:
    """Ask while the block runs; the list is filled when it ends."""
    command = [sys.executable, __file__, url, str(per_second)]
    pinned = ["taskset", "-c", measure.LOAD_CPU, *command] if shutil.which("taskset") else command
    seen: list[Asked] = []
    with subprocess.Popen(pinned, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdin is not None
        assert asker.stdout is not None
        asker.stdin.write(json.dumps(list(bodies)) + "\n")
        asker.stdin.flush()
        asker.stdout.readline()
        yield seen
        said, _ = asker.communicate()
    seen += [Asked(*one) for one in json.loads(said)]


def quantile(asked: Sequence[Asked], share: float) -> float:
    """Return the latency, in milliseconds, below which `share` of the answers stayed."""
    ordered = sorted(a.ms for a in asked)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def failed(asked: Sequence[Asked]) -> int:
    """Count requests that were not answered with 200."""
    return sum(a.status != 200 for a in asked)


def main() -> None:
    """Ask from the first line of standard input until there is no more; print what was noted."""
    url, per_second = sys.argv[1], float(sys.argv[2])
    bodies = [json.dumps(body).encode() for body in json.loads(sys.stdin.readline())]
    seen: list[Asked] = []
    stop = threading.Event()
    start = time.monotonic() + 0.1
    threads = [
        threading.Thread(target=_ask, args=(url, bodies, seen, stop, start + n / per_second, _THREADS / per_second))
        for n in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    print("asking", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps(seen))


def _ask(url: str, bodies: list[bytes], seen: list[Asked], stop: threading.Event, due: float, pause: float) -> None:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.netloc, timeout=30)
    n = int(due / pause)
    while not stop.is_set():
        time.sleep(max(0.0, due - time.monotonic()))
        sent, status, version = time.monotonic(), 0, 0
        try:
            connection.request("POST", where.path, bodies[n % len(bodies)], {"content-type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            status, version = response.status, _version(answer)
        except (OSError, http.client.HTTPException):
            connection.close()
        seen.append(Asked(due, sent, time.monotonic(), status, version))
        due, n = due + pause, n + 1
    connection.close()


def _version(answer: dict[str, Any]) -> int:
    model = answer.get("model")
    return int(answer.get("model_version") or (model or {}).get("version") or 0)


if __name__ == "__main__":
    main()
