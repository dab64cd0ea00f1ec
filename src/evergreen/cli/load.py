"""A load generator that counts every request: what was asked, what was answered, by whom, how quickly."""

from __future__ import annotations

import http.client
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from threading import Event, Lock, Thread
from time import monotonic, perf_counter, sleep
from typing import Any
from urllib.parse import urlsplit

#: A request that is not answered after so long has failed.
_PATIENCE_S = 60.0


class Load:
    """Asks over kept-alive connections at a steady rate until stopped. Nothing is retried: a failure counts."""

    def __init__(self, url: str, path: str, bodies: Sequence[Any], *, per_second: float, threads: int = 4) -> None:
        self._host = urlsplit(url).netloc
        self._path = path
        self._bodies = [json.dumps(b).encode() for b in bodies]
        self._pause = threads / per_second
        self._stop = Event()
        self._lock = Lock()
        self._threads = [Thread(target=self._ask, args=(n,), daemon=True) for n in range(threads)]
        #: HTTP status (0: no answer at all) -> how often.
        self.statuses: Counter[int] = Counter()
        #: Model version, as the answer says -> how often.
        self.versions: Counter[str] = Counter()
        self._latencies: list[float] = []

    @property
    def answered(self) -> int:
        """Requests answered with 200."""
        return self.statuses[200]

    @property
    def failed(self) -> int:
        """Requests answered otherwise, or not at all."""
        return self.statuses.total() - self.statuses[200]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the requests under way and end."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def quantile_ms(self, share: float) -> float:
        """Return the latency, in milliseconds, below which `share` of the answers stayed."""
        with self._lock:
            ordered = sorted(self._latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")

    def _ask(self, offset: int) -> None:
        connection: http.client.HTTPConnection | None = None
        due = monotonic() + offset * self._pause / len(self._threads)
        for body in itertools.islice(itertools.cycle(self._bodies), offset, None):
            if self._stop.is_set():
                break
            sleep(max(0.0, due - monotonic()))
            due = max(due + self._pause, monotonic() - 1)
            begin = perf_counter()
            status, version = 0, ""
            try:
                connection = connection or http.client.HTTPConnection(self._host, timeout=_PATIENCE_S)
                connection.request("POST", self._path, body, {"content-type": "application/json"})
                response = connection.getresponse()
                answer = json.loads(response.read())
                status = response.status
                version = response.headers.get("x-model-version") or str(answer.get("model_version", ""))
            except (OSError, ValueError, http.client.HTTPException):
                connection = None  # counted as status 0
            with self._lock:
                self.statuses[status] += 1
                self.versions[version] += 1
                self._latencies.append((perf_counter() - begin) * 1000)
        if connection is not None:
            connection.close()
