"""What is documented, drawn and given to Prometheus are the same figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from http_harness import MEMORY, PLAIN, App
from prometheus_client.parser import text_string_to_metric_families

from evergreen.http.metrics import FAMILIES
from webhook_receiver import Receiver

DOCS = Path(__file__).resolve().parents[2] / "docs"
#: What a scrape calls the samples of each kind.
SUFFIXES = {
    "counter": ("_total",),
    "info": ("_info",),
    "gauge": ("",),
    "summary": ("_sum", "_count"),
    "histogram": ("_bucket", "_sum", "_count"),
}
SERIES = {name + suffix for name, (kind, _, _) in FAMILIES.items() for suffix in SUFFIXES[kind]}
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}


def queries(dashboard: Any) -> Iterator[str]:
    """Yield every query, wherever in the dashboard it stands."""
    if isinstance(dashboard, dict):
        for key, value in dashboard.items():
            if key in ("expr", "query", "definition") and isinstance(value, str) and value != "prometheus":
                yield value
            else:
                yield from queries(value)
    elif isinstance(dashboard, list):
        for value in dashboard:
            yield from queries(value)


def figures_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:evergreen|process)_\w+", re.sub(r'"[^"]*"', '""', query)))


def test_every_query_of_the_dashboard_names_figures_and_labels_there_are() -> None:
    dashboard = json.loads((DOCS / "grafana" / "evergreen.json").read_text())
    asked = list(queries(dashboard))
    assert len(asked) > 30
    for query in asked:
        named = figures_in(query)
        assert named, query
        assert named <= SERIES | PROCESS, query
        for name, braces in re.findall(r"\b(evergreen_\w+)\{([^}]*)\}", query):
            labels = {label for family, (_, ls, _) in FAMILIES.items() if name.startswith(family) for label in ls}
            assert set(re.findall(r"(\w+)=", braces)) <= labels | {"le"}, query
    shown = set().union(*map(figures_in, asked))
    kinds = {name: {name + suffix for suffix in SUFFIXES[kind]} for name, (kind, _, _) in FAMILIES.items()}
    assert {name for name, series in kinds.items() if not series & shown} == {"evergreen_build", "evergreen_model"}
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_the_page_lists_every_figure_and_no_other() -> None:
    page = (DOCS / "howto" / "watch.md").read_text()
    told = dict(re.findall(r"^\| `(evergreen_\w+)` \| (.+?) \|", page, re.MULTILINE))
    plain = {"counter": "_total", "info": "_info"}
    assert told == {
        name + plain.get(kind, ""): ", ".join(f"`{label}`" for label in labels) or "–"
        for name, (kind, labels, _) in FAMILIES.items()
    }
    block = page.partition("What to be woken for:")[2].partition("```text")[2].partition("```")[0]
    for line in filter(None, block.splitlines()):
        assert figures_in(line) <= SERIES, line


def test_every_figure_is_given_and_makes_sense(start: Any, receiver: Receiver) -> None:
    receiver.answer = lambda: 503
    app: App = start(f'{MEMORY}[[subscribers]]\nuse = "webhook"\nurl = "{receiver.url}"\n{PLAIN}')
    version = str(app.learn("first"))
    app.learn("second")
    app.post("/api/toy/predict", {"input": 1})
    app.post("/api/toy/rollback", {"why": "a test"})
    receiver.wait(lambda: receiver.posts)
    families = list(text_string_to_metric_families(app.http.get("/metrics").text))
    names = {name if kind != "info" else f"{name}_info" for name, (kind, _, _) in FAMILIES.items()}
    assert {f.name for f in families if not f.name.startswith("process_")} == names
    assert all(f.documentation for f in families)
    found = {(s.name, *sorted(s.labels.values())): s.value for f in families for s in f.samples}
    assert found["evergreen_events_total", "new champion", "toy"] == 3
    assert found["evergreen_events_total", "rolled back", "toy"] == 1
    assert found["evergreen_gate_verdict", "2", "promote", "toy"] == 1
    assert found["evergreen_model_score", "1", "accuracy", "champion", "toy"] >= 0
    assert (version, found["evergreen_variant_answered_total", "1", "champion", "toy"]) == ("1", 0)
    assert found["evergreen_outbox_waiting", "webhook"] > 5
    assert found["evergreen_outbox_tries", "webhook"] >= 1
    assert found["evergreen_ledger_commit_seconds_count",] >= 2
    assert found["evergreen_champion_data_timestamp_seconds", "toy"] > 1_700_000_000
    assert found["evergreen_last_run_timestamp_seconds", "succeeded", "toy"] > 1_700_000_000
    assert found["process_resident_memory_bytes",] > 1_000_000
