"""Shows trainings and model versions to people who look into MLflow; over its REST interface, without its library."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
from pydantic import Field

from evergreen.backends.subscriber import from_environment, named
from evergreen.core.errors import Conflict, NotFound, Unavailable
from evergreen.core.ports import Ledger, Store
from evergreen.core.recipe import PluginOptions
from evergreen.core.records import Dataset, Event, Json, Model, Run
from evergreen.core.states import ON_THE_WAY, ModelState, RunState

_STATUS = {
    RunState.SUCCEEDED: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.CANCELLED: "KILLED",
    RunState.SKIPPED: "KILLED",
}
#: MLflow's longest param and tag.
_PARAM, _TAG = 500, 5000
#: Where a model's files lie among those of its run.
_FOLDER = "model"


class MlflowOptions(PluginOptions):
    """Which server, and what of it."""

    url: str = "env:MLFLOW_TRACKING_URI"
    """`http://…` of the tracking server, or `env:NAME`. Who calls is said by MLFLOW_TRACKING_TOKEN, or by
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, in the environment."""
    prefix: str = ""
    """Set before the loop's name to make the name of its experiment and of its registered model."""
    artifacts: bool = False
    """Copy the files of every model that was passed; the server must take artifacts (`--serve-artifacts`)."""
    timeout_s: float = Field(15.0, gt=0, le=30)
    """Longest wait for one answer, in seconds."""


class MlflowSubscriber:
    """Brings MLflow in step with the ledger: an event says what to look at, what is shown is how it is now.

    That makes it safe to be told twice, late, or of everything from the beginning.
    """

    Options: ClassVar[type[PluginOptions]] = MlflowOptions
    kinds = ("run", "model")
    collapse_s = 0.0

    def __init__(self, options: MlflowOptions, *, home: Path, store: Store) -> None:  # noqa: ARG002 - given to all
        self._options = options
        self._store = store
        self.secrets = (
            *named(options.url),
            "MLFLOW_TRACKING_TOKEN",
            "MLFLOW_TRACKING_PASSWORD",
        )
        self._experiments: dict[str, str] = {}

    def tell(self, event: Event, look: Ledger) -> None:
        """Show the run or model that an event is about. Raises `Unavailable`."""
        try:
            if event.noun == "run":
                self._show_run(look.get(Run, event.about), look)
            elif event.noun == "model":
                self._show_model(look.get(Model, event.about), look)
        except NotFound:  # it was forgotten since
            return

    # Runs

    def _show_run(self, run: Run, look: Ledger) -> str:
        """Make or renew the run in MLflow; return its id there."""
        data = _dataset(run.dataset, look)
        tags = {
            "evergreen.run": run.id,
            "evergreen.loop": run.loop,
            "evergreen.state": run.state.value,
            "evergreen.why": run.why,
            "evergreen.by": run.by,
            "evergreen.attempt": str(run.attempt),
            "evergreen.error": run.error or "",
            "mlflow.user": run.by,
            "mlflow.source.name": "evergreen",
            **_lineage(data, run.base),
        }
        params = {name: str(value)[:_PARAM] for name, value in run.overrides.items()}
        if data is not None:
            params |= {
                "dataset.version": str(data.version),
                "dataset.train": str(data.train),
            }
            params["dataset.holdout"] = str(data.holdout)
        began = _ms(run.started or run.at)
        id = self._run(run.loop, "evergreen.run", run.id, f"{run.loop} {run.id[:12]}", began, tags)
        self._batch(
            id,
            params=params,
            tags=tags,
            metrics=_numbers(run.progress.get("metrics") or {}, run.ended or run.at),
        )
        self._end(id, _STATUS.get(run.state, "RUNNING"), _ms(run.ended))
        return id

    def _show_model(self, model: Model, look: Ledger) -> None:
        if model.run is not None:
            id = self._show_run(look.get(Run, model.run), look)
        else:
            tags = {
                "evergreen.model": model.id,
                "evergreen.loop": model.loop,
                **_lineage(None, model.base),
            }
            id = self._run(
                model.loop,
                "evergreen.model",
                model.id,
                f"{model.loop} v{model.version}",
                _ms(model.at),
                tags,
            )
            self._end(id, "FINISHED", _ms(model.at))
        metrics = _numbers(model.scores, model.at) + _numbers(model.rival_scores, model.at, "champion.")
        metrics += _numbers(
            {k: v for k, v in model.details.items() if isinstance(v, int | float)},
            model.at,
            "details.",
        )
        self._batch(id, metrics=metrics, tags={"evergreen.version": str(model.version)})
        if self._options.artifacts and model.state not in (
            ModelState.CANDIDATE,
            ModelState.REJECTED,
        ):
            self._upload(id, model)
        number = self._version(model, id)
        tags = {
            "evergreen.state": model.state.value,
            "evergreen.share": f"{model.share:g}",
            "evergreen.verdict": str(model.verdict.get("outcome", "")),
            "evergreen.because": str(model.verdict.get("because", "")),
            "evergreen.artifact": model.key,
            **_lineage(_dataset(model.dataset, look), model.base),
        }
        name = self._name(model.loop)
        for key, value in tags.items():
            said = {"name": name, "version": number, "key": key, "value": value[:_TAG]}
            self._call("POST", "model-versions/set-tag", said)
        self._aliases(model.loop, look)

    def _run(
        self,
        loop: str,
        key: str,
        value: str,
        name: str,
        began: int,
        tags: Mapping[str, str],
    ) -> str:
        """Return the id of the MLflow run with a tag; make it, the tag with it, if there is none."""
        experiment = self._experiment(loop)
        asked = {
            "experiment_ids": [experiment],
            "filter": f"tags.`{key}` = '{value}'",
            "max_results": 1,
        }
        found = self._call("POST", "runs/search", asked).get("runs") or []
        if not found:
            wanted = {
                "experiment_id": experiment,
                "run_name": name,
                "start_time": began,
                "tags": _pairs(tags),
            }
            found = [self._call("POST", "runs/create", wanted)["run"]]
        return str(found[0]["info"]["run_id"])

    def _experiment(self, loop: str) -> str:
        name = self._name(loop)
        if name not in self._experiments:
            try:
                said = self._call("GET", "experiments/get-by-name", {"experiment_name": name})["experiment"]
            except NotFound:
                said = self._call("POST", "experiments/create", {"name": name})
            self._experiments[name] = str(said["experiment_id"])
        return self._experiments[name]

    def _batch(
        self,
        id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: list[dict[str, Json]] | None = None,
    ) -> None:
        said = {
            "run_id": id,
            "metrics": metrics or [],
            "params": _pairs(params or {}),
            "tags": _pairs(tags or {}),
        }
        self._call("POST", "runs/log-batch", said)

    def _end(self, id: str, status: str, at: int) -> None:
        said: dict[str, Json] = {"run_id": id, "status": status}
        if status != "RUNNING" and at:
            said["end_time"] = at
        self._call("POST", "runs/update", said)

    # Versions

    def _version(self, model: Model, run: str) -> str:
        """Return the number of the registered version of a model; register it if it is not."""
        name = self._name(model.loop)
        with suppress(Conflict):  # it is there
            self._call(
                "POST",
                "registered-models/create",
                {"name": name, "tags": _pairs({"evergreen.loop": model.loop})},
            )
        of_this = {
            "filter": f"name = '{name}' and tags.`evergreen.model` = '{model.id}'",
            "max_results": 1,
        }
        found = self._call("GET", "model-versions/search", of_this).get("model_versions") or []
        if not found:
            where = self._call("GET", "runs/get", {"run_id": run})["run"]["info"]["artifact_uri"]
            tags = {
                "evergreen.model": model.id,
                "evergreen.version": str(model.version),
            }
            wanted = {
                "name": name,
                "source": f"{where}/{_FOLDER}",
                "run_id": run,
                "tags": _pairs(tags),
            }
            wanted["description"] = f"Version {model.version} of {model.loop} in Evergreen."
            found = [self._call("POST", "model-versions/create", wanted)["model_version"]]
        return str(found[0]["version"])

    def _aliases(self, loop: str, look: Ledger) -> None:
        """Let `champion` and `challenger` point to who they are now, or to nobody."""
        name = self._name(loop)
        said = self._call("GET", "registered-models/get", {"name": name})["registered_model"]
        points = {one["alias"]: str(one["version"]) for one in said.get("aliases") or []}
        for alias, states in (
            ("champion", (ModelState.CHAMPION,)),
            ("challenger", ON_THE_WAY),
        ):
            holder = look.last(Model, loop, *states)
            known = None if holder is None else self._known(holder)
            if known is not None and points.get(alias) != known:
                self._call(
                    "POST",
                    "registered-models/alias",
                    {"name": name, "alias": alias, "version": known},
                )
            elif holder is None and alias in points:
                self._call("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    def _known(self, model: Model) -> str | None:
        """Return the number of a version that is registered; one that is not will be, by an event of its own."""
        of_this = f"name = '{self._name(model.loop)}' and tags.`evergreen.model` = '{model.id}'"
        found = self._call("GET", "model-versions/search", {"filter": of_this, "max_results": 1}).get("model_versions")
        return str(found[0]["version"]) if found else None

    def _name(self, loop: str) -> str:
        return f"{self._options.prefix}{loop}"

    # Files

    def _upload(self, run: str, model: Model) -> None:
        """Copy a model's files beside its run, once."""
        there = self._call("GET", "artifacts/list", {"run_id": run, "path": _FOLDER}).get("files") or []
        where = self._call("GET", "runs/get", {"run_id": run})["run"]["info"]["artifact_uri"]
        if there or not where.startswith("mlflow-artifacts:"):
            return
        root = where.removeprefix("mlflow-artifacts:").lstrip("/")
        with tempfile.TemporaryDirectory(prefix="evergreen-mlflow-") as folder:
            files = Path(folder) / "files"
            try:
                self._store.get(model.key, files)
            except NotFound:  # swept away since
                return
            for path in sorted(p for p in files.rglob("*") if p.is_file()):
                to = quote(f"{root}/{_FOLDER}/{path.relative_to(files).as_posix()}")
                self._send(
                    "PUT",
                    f"/api/2.0/mlflow-artifacts/artifacts/{to}",
                    content=path.read_bytes(),
                )

    # The wire

    def _call(self, method: str, path: str, said: Mapping[str, Json]) -> dict[str, Any]:
        kind = "params" if method == "GET" else "json"
        return self._send(method, f"/api/2.0/mlflow/{path}", **{kind: said})

    def _send(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        base = from_environment(self._options.url, "MLflow's address").rstrip("/")
        host = httpx.URL(base).host
        try:
            with httpx.Client(timeout=self._options.timeout_s, auth=_auth(), headers=_bearer()) as http:
                answer = http.request(method, base + path, **what)
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise Unavailable(f"MLflow at {host} cannot be reached: {type(e).__name__}") from None
        try:
            heard = answer.json() if answer.content else {}
        except ValueError:
            heard = {}
        if answer.is_success and isinstance(heard, dict):
            return heard
        code = str(heard.get("error_code", "")) if isinstance(heard, dict) else ""
        message = f"MLflow at {host} answered {answer.status_code} to {path}: {code} {str(heard)[:200]}"
        if code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound(message)
        if code == "RESOURCE_ALREADY_EXISTS":
            raise Conflict(message)
        raise Unavailable(message)


def _auth() -> httpx.BasicAuth | None:
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return httpx.BasicAuth(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None


def _bearer() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _dataset(id: str | None, look: Ledger) -> Dataset | None:
    return None if id is None else look.get(Dataset, id)


def _lineage(data: Dataset | None, base: str | None) -> dict[str, str]:
    tags = {"evergreen.base": base} if base else {}
    if data is not None:
        tags |= {
            "evergreen.dataset": data.id,
            "evergreen.dataset.version": str(data.version),
        }
        tags |= {
            "evergreen.dataset.sha256": data.digest,
            "evergreen.dataset.key": data.key,
        }
    return tags


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value[:_TAG]} for key, value in values.items()]


def _numbers(values: Mapping[str, Json], at: Any, prefix: str = "") -> list[dict[str, Json]]:
    """Write metrics; the same one twice, at one time and step, is one for MLflow."""
    return [
        {"key": prefix + name, "value": float(value), "timestamp": _ms(at), "step": 0}
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _ms(at: Any) -> int:
    return int(at.timestamp() * 1000) if at is not None else 0
