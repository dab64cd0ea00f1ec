"""Figures for Prometheus: what the processes have counted and the ledger holds, dressed up when somebody asks."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import evergreen
from evergreen import outbox
from evergreen.core.ports import Ledger
from evergreen.core.records import KINDS, Dataset, Event, Model, Run
from evergreen.core.states import IN_SERVICE, OPEN_RUNS, ModelState, RunState
from evergreen.http.figures import BOUNDS, Counts, total

if TYPE_CHECKING:
    from evergreen.http.desk import Desk
    from evergreen.http.serving import Serving

#: name -> kind, labels, what it means. `docs/howto/watch.md` lists them.
FAMILIES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "evergreen_build": ("info", (), "The version of Evergreen."),
    "evergreen_requests": ("counter", ("loop", "operation", "status"), "Requests answered."),
    "evergreen_answers": ("counter", ("loop", "version", "variant"), "Predictions given."),
    "evergreen_predict_seconds": ("histogram", ("loop",), "Time to answer a prediction."),
    "evergreen_unlogged": ("counter", ("loop",), "Predictions that could not be written down."),
    "evergreen_model": ("info", ("loop",), "Models in service."),
    "evergreen_model_share": ("gauge", ("loop", "version"), "Share of the traffic."),
    "evergreen_model_score": ("gauge", ("loop", "version", "variant", "metric"), "Mean score on the holdout."),
    "evergreen_models_stale": ("gauge", ("loop",), "1 while the models in service cannot be brought up to date."),
    "evergreen_champion_since_timestamp_seconds": ("gauge", ("loop",), "When the champion took over."),
    "evergreen_champion_data_timestamp_seconds": ("gauge", ("loop",), "When the champion's data was frozen."),
    "evergreen_samples": ("gauge", ("loop", "kind"), "Samples stored."),
    "evergreen_samples_new": ("gauge", ("loop",), "Usable samples that came after the newest dataset."),
    "evergreen_runs_open": ("gauge", ("loop", "state"), "Trainings waiting or running."),
    "evergreen_run_started_timestamp_seconds": ("gauge", ("loop",), "When the training under way began."),
    "evergreen_run_progress": ("gauge", ("loop",), "Share of the training under way that is done."),
    "evergreen_last_run_timestamp_seconds": ("gauge", ("loop", "state"), "When the newest training ended, and how."),
    "evergreen_gate_verdict": ("gauge", ("loop", "version", "outcome"), "1 for the verdict on the newest model."),
    "evergreen_events": ("counter", ("loop", "kind"), "Lines of history written since the server began."),
    "evergreen_alarm": ("gauge", ("loop",), "1 while the champion's answers fail more often than allowed."),
    "evergreen_drift": ("gauge", ("loop", "of"), "How far live traffic is from the data learnt from, where observed."),
    "evergreen_variant_answered": ("counter", ("loop", "version", "variant"), "Answers, shadows' included."),
    "evergreen_variant_failed": ("counter", ("loop", "version", "variant"), "Inputs it could not answer."),
    "evergreen_variant_seconds": ("counter", ("loop", "version", "variant"), "Time its answers took, summed."),
    "evergreen_variant_judged": ("counter", ("loop", "version", "variant"), "Answers that a label later came for."),
    "evergreen_variant_right": ("counter", ("loop", "version", "variant"), "Of those, answers that were right."),
    "evergreen_variant_compared": ("counter", ("loop", "version", "variant"), "Shadow answers that were compared."),
    "evergreen_variant_agreed": ("counter", ("loop", "version", "variant"), "Of those, answers that decide the same."),
    "evergreen_intake_waiting": ("gauge", (), "Samples waiting to be stored."),
    "evergreen_ledger_commit_seconds": ("summary", (), "Time the writer's transactions took."),
    "evergreen_ledger_read_seconds": ("gauge", (), "Time one small read of the ledger took just now."),
    "evergreen_outbox_waiting": ("gauge", ("subscriber",), "Events still to be told."),
    "evergreen_outbox_oldest_timestamp_seconds": ("gauge", ("subscriber",), "When the first of them happened."),
    "evergreen_outbox_tries": ("gauge", ("subscriber",), "Tries in vain to tell the next event."),
    "evergreen_outbox_told": ("counter", ("subscriber",), "Messages that were taken."),
    "evergreen_outbox_given_up": ("counter", ("subscriber",), "Events left out."),
}


class History:
    """Counts the lines of history by kind, each once, from when the server began: the same in each of its processes."""

    def __init__(self) -> None:
        self._after: int | None = None
        self.counted: Counter[tuple[str, str]] = Counter()

    def read(self, serving: Serving) -> None:
        """Count what is new (blocking)."""
        ledger = serving.project.ledger
        if self._after is None:
            began = serving.figures.began
            self._after = newest(ledger) if began is None else began
        while found := ledger.find(Event, None, after=self._after, limit=1000):
            self.counted.update((event.loop, event.kind) for event in found)
            self._after = found[-1].seq


def newest(ledger: Ledger) -> int:
    """Return the number of the newest line of history."""
    found = ledger.find(Event, None, newest_first=True, limit=1)
    return found[0].seq if found else 0


def render(serving: Serving) -> bytes:
    """Write all figures in Prometheus's text format (blocking: it reads the ledger)."""
    from prometheus_client import CollectorRegistry, generate_latest

    counts = serving.figures.all()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Processes([one.pid for one in counts]))
    registry.register(_Collector(serving, counts))
    return bytes(generate_latest(registry))


class _Processes:
    """The system's figures of processes, summed up; of those that live."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Any]:
        """Yield Prometheus's own families."""
        from prometheus_client import CollectorRegistry, Metric, ProcessCollector

        families: dict[str, Metric] = {}
        for pid in self._pids:
            theirs = ProcessCollector(registry=CollectorRegistry(), pid=partial(str, pid)).collect()
            for family in theirs:
                known = families.setdefault(family.name, family)
                if known is not family:
                    one, more = known.samples[0], family.samples[0].value
                    value = min(one.value, more) if "start_time" in one.name else one.value + more
                    known.samples[0] = one._replace(value=value)
        yield from families.values()


class _Collector:
    """Makes Prometheus's families of what the server has counted and the ledger holds."""

    def __init__(self, serving: Serving, counts: list[Counts]) -> None:
        self._serving = serving
        self._counts = counts
        self._made: dict[str, Any] = {}

    def collect(self) -> Iterator[Any]:
        """Yield every family, the ones without a figure too: they say what there is."""
        from prometheus_client import core

        kinds = {
            "info": core.InfoMetricFamily,
            "counter": core.CounterMetricFamily,
            "gauge": core.GaugeMetricFamily,
            "histogram": core.HistogramMetricFamily,
            "summary": core.SummaryMetricFamily,
        }
        self._made = {name: kinds[kind](name, help, labels=labels) for name, (kind, labels, help) in FAMILIES.items()}
        self._server()
        for name, desk in self._serving.desks.items():
            self._traffic(name)
            self._models(name, desk)
            self._data(name, desk)
            self._trainings(name, desk)
            self._watched(name, desk)
        self._outbox()
        yield from self._made.values()

    def _put(self, name: str, labels: Sequence[object], value: float | None) -> None:
        if value is not None:
            self._made[name].add_metric([str(label) for label in labels], value)

    def _server(self) -> None:
        serving = self._serving
        self._made["evergreen_build"].add_metric((), {"version": evergreen.__version__})
        self._put("evergreen_intake_waiting", (), sum(one.waiting for one in self._counts if _lives(one.pid)))
        commits = sum(one.commits for one in self._counts)
        seconds = sum(one.commit_seconds for one in self._counts)
        self._made["evergreen_ledger_commit_seconds"].add_metric((), commits, seconds)
        began = time.perf_counter()
        serving.project.ledger.revision()
        self._put("evergreen_ledger_read_seconds", (), time.perf_counter() - began)
        serving.happened.read(serving)

    def _traffic(self, name: str) -> None:
        meter = total(self._counts, name)
        for (operation, status), n in meter.requests.items():
            self._put("evergreen_requests", (name, operation, status), n)
        for (version, variant), n in meter.answers.items():
            self._put("evergreen_answers", (name, version, variant), n)
        self._made["evergreen_predict_seconds"].add_metric((name,), _cumulative(meter.buckets), meter.seconds)
        self._put("evergreen_unlogged", (name,), meter.dropped)

    def _models(self, name: str, desk: Desk) -> None:
        ledger = desk.loop.ledger
        for slot in desk.live.lineup.slots:
            model = slot.model
            self._made["evergreen_model"].add_metric(
                (name,), {"version": str(model.version), "state": model.state.value}
            )
            self._put("evergreen_model_share", (name, model.version), model.share)
        for model in ledger.find(Model, name, *IN_SERVICE):
            labels = (name, model.version, model.state.value)
            for metric, value in model.scores.items():
                self._put("evergreen_model_score", (*labels, metric), value)
            tally = ledger.tally(model.id)
            for field in ("answered", "failed", "judged", "right", "compared", "agreed"):
                self._put(f"evergreen_variant_{field}", labels, getattr(tally, field))
            self._put("evergreen_variant_seconds", labels, tally.latency_ms / 1000)
            if model.state is ModelState.CHAMPION:
                data = ledger.get(Dataset, model.dataset) if model.dataset else None
                self._put("evergreen_champion_since_timestamp_seconds", (name,), _seconds(model.since or model.at))
                self._put("evergreen_champion_data_timestamp_seconds", (name,), _seconds(data.at if data else None))
        self._put("evergreen_models_stale", (name,), int(name in self._serving.troubles))
        judged = ledger.last(Model, name)
        if judged is not None and judged.verdict.get("outcome"):
            self._put("evergreen_gate_verdict", (name, judged.version, judged.verdict["outcome"]), 1)

    def _data(self, name: str, desk: Desk) -> None:
        ledger = desk.loop.ledger
        counts = ledger.counts(name)
        for kind in ("usable", "unlabelled", "pending", "rejected", "quarantined"):
            self._put("evergreen_samples", (name, kind), getattr(counts, kind))
        data = ledger.last(Dataset, name)
        self._put("evergreen_samples_new", (name,), max(0, counts.usable - (data.collected if data else 0)))

    def _trainings(self, name: str, desk: Desk) -> None:
        ledger = desk.loop.ledger
        runs = ledger.find(Run, name, *OPEN_RUNS)
        for state in OPEN_RUNS:
            self._put("evergreen_runs_open", (name, state.value), sum(run.state is state for run in runs))
        for run in runs:
            if run.state is RunState.RUNNING:
                self._put("evergreen_run_started_timestamp_seconds", (name,), _seconds(run.started))
                if steps := run.progress.get("total"):
                    self._put("evergreen_run_progress", (name,), run.progress.get("step", 0) / steps)
        ended = ledger.last(Run, name, *(state for state in RunState if state not in OPEN_RUNS))
        if ended is not None:
            labels = (name, ended.state.value)
            self._put("evergreen_last_run_timestamp_seconds", labels, _seconds(ended.ended or ended.at))

    def _watched(self, name: str, desk: Desk) -> None:
        ledger = desk.loop.ledger
        counted = self._serving.happened.counted
        kinds = {*KINDS.values(), "alarm", "all clear", *(kind for loop, kind in counted if loop == name)}
        for kind in sorted(kinds):
            self._put("evergreen_events", (name, kind), counted[name, kind])
        watched = json.loads(ledger.recall("watch", name) or "{}")
        self._put("evergreen_alarm", (name,), int(bool(watched.get("alarm"))))
        drift = json.loads(ledger.recall("drift", name) or "{}")
        for of, value in drift.items():
            if isinstance(value, int | float):
                self._put("evergreen_drift", (name, of), value)

    def _outbox(self) -> None:
        for standing in outbox.standing(self._serving.project):
            labels = (standing.name,)
            self._put("evergreen_outbox_waiting", labels, standing.waiting)
            self._put("evergreen_outbox_oldest_timestamp_seconds", labels, _seconds(standing.oldest))
            self._put("evergreen_outbox_tries", labels, standing.place.tries)
            self._put("evergreen_outbox_told", labels, standing.place.told)
            given_up = sum(one.given_up.get(standing.name, 0) for one in self._counts)
            self._put("evergreen_outbox_given_up", labels, given_up)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _cumulative(buckets: list[int]) -> list[tuple[str, int]]:
    total, rows = 0, []
    for bound, n in zip((*BOUNDS, float("inf")), list(buckets), strict=True):
        total += n
        rows.append(("+Inf" if bound == float("inf") else repr(bound), total))
    return rows
