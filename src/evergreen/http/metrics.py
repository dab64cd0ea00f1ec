"""Figures for Prometheus: plain integers that the hot path adds to, dressed up when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from evergreen.core.records import Run
from evergreen.core.states import OPEN_RUNS

if TYPE_CHECKING:
    from evergreen.http.serving import Serving

#: Upper bounds of the latency buckets, in seconds.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Meter:
    """What one loop's requests cost and how they ended. Written by the event loop's thread only."""

    __slots__ = ("answers", "buckets", "dropped", "requests", "seconds")

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  #: (operation, status) -> how many
        self.answers: Counter[tuple[int, str]] = Counter()  #: (version, variant) -> how many
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.dropped = 0  #: predictions that could not be written down

    def took(self, seconds: float) -> None:
        """Count how long a prediction took."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


def render(serving: Serving) -> bytes:
    """Write all figures in Prometheus's text format (blocking: it reads the ledger)."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(serving))
    return bytes(generate_latest(registry))


class _Collector:
    """Makes Prometheus's families of what the server has counted."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
            InfoMetricFamily,
        )

        requests = CounterMetricFamily(
            "evergreen_requests", "Requests answered.", labels=("loop", "operation", "status")
        )
        answers = CounterMetricFamily("evergreen_answers", "Predictions given.", labels=("loop", "version", "variant"))
        latency = HistogramMetricFamily("evergreen_predict_seconds", "Time to answer a prediction.", labels=("loop",))
        dropped = CounterMetricFamily("evergreen_unlogged", "Predictions not written down.", labels=("loop",))
        model = InfoMetricFamily("evergreen_model", "Models in service.", labels=("loop",))
        share = GaugeMetricFamily("evergreen_model_share", "Share of the traffic.", labels=("loop", "version"))
        samples = GaugeMetricFamily("evergreen_samples", "Samples stored.", labels=("loop", "kind"))
        training = GaugeMetricFamily("evergreen_runs_open", "Trainings waiting or running.", labels=("loop", "state"))
        for name, desk in self._serving.desks.items():
            meter = desk.meter
            for (operation, status), n in list(meter.requests.items()):
                requests.add_metric((name, operation, str(status)), n)
            for (version, variant), n in list(meter.answers.items()):
                answers.add_metric((name, str(version), variant), n)
            latency.add_metric((name,), _cumulative(meter.buckets), meter.seconds)
            dropped.add_metric((name,), meter.dropped)
            for slot in desk.live.lineup.slots:
                number = str(slot.model.version)
                model.add_metric((name,), {"version": number, "state": slot.model.state.value})
                share.add_metric((name, number), slot.model.share)
            counts = desk.loop.ledger.counts(name)
            for kind in ("usable", "unlabelled", "pending", "rejected", "quarantined"):
                samples.add_metric((name, kind), getattr(counts, kind))
            runs = Counter(run.state.value for run in desk.loop.ledger.find(Run, name, *OPEN_RUNS))
            for state in OPEN_RUNS:
                training.add_metric((name, state.value), runs[state.value])
        yield from (requests, answers, latency, dropped, model, share, samples, training)
        waiting = GaugeMetricFamily("evergreen_intake_waiting", "Samples waiting to be stored.")
        waiting.add_metric((), self._serving.intake.waiting)
        yield waiting


def _cumulative(buckets: list[int]) -> list[tuple[str, int]]:
    total, rows = 0, []
    for bound, n in zip((*BOUNDS, float("inf")), list(buckets), strict=True):
        total += n
        rows.append(("+Inf" if bound == float("inf") else repr(bound), total))
    return rows
