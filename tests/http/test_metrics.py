"""What Prometheus reads."""

from __future__ import annotations

from http_harness import App
from prometheus_client.parser import text_string_to_metric_families


def figures(app: App) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    said = app.http.get("/metrics")
    assert said.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (s.name, frozenset(s.labels.items())): s.value
        for family in text_string_to_metric_families(said.text)
        for s in family.samples
    }


def label(**labels: str) -> frozenset[tuple[str, str]]:
    return frozenset({"loop": "toy", **labels}.items())


def test_what_was_done_is_counted(app: App) -> None:
    version = str(app.learn("first"))
    for n in range(3):
        app.post("/api/toy/predict", {"input": n})
    app.post("/api/toy/predict", {"input": {"n": "x"}})
    said = figures(app)
    assert said["evergreen_requests_total", label(operation="predict", status="200")] == 3
    assert said["evergreen_requests_total", label(operation="predict", status="400")] == 1
    assert said["evergreen_requests_total", label(operation="samples", status="200")] == 1
    assert said["evergreen_answers_total", label(version=version, variant="champion")] == 3
    assert said["evergreen_predict_seconds_count", label()] == 3
    assert said["evergreen_predict_seconds_bucket", label(le="+Inf")] == 3
    assert said["evergreen_model_info", label(version=version, state="champion")] == 1
    assert said["evergreen_model_share", label(version=version)] == 1
    assert said["evergreen_samples", label(kind="usable")] == 20
    assert said["evergreen_runs_open", label(state="running")] == 0
    assert said["evergreen_intake_waiting", frozenset()] >= 0


def test_it_can_be_read_before_anything_happened(app: App) -> None:
    assert figures(app)["evergreen_predict_seconds_count", label()] == 0
