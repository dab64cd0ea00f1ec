"""evergreen.toml as pydantic models: every setting, its default and its sentence of help."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from evergreen.core.errors import ConfigError

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def duration(text: Any) -> Any:
    """Read "90s", "10m", "1.5h" or "3d"; leave anything else to pydantic.

    >>> duration("24h")
    datetime.timedelta(days=1)
    """
    if isinstance(text, str) and (m := _DURATION.fullmatch(text.strip())):
        return timedelta(**{_UNITS[m[2]]: float(m[1])})
    return text


Duration = Annotated[timedelta, BeforeValidator(duration)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of evergreen.toml: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Use(BaseModel):
    """Which plugin to use, and its own options: `{ use = "csv", path = "log.csv" }`."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    use: str

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name; checked by the plugin's own `Options`."""
        return dict(self.model_extra or {})


def store_at(place: str) -> Use:
    """Return the store at a URL or a path: file:///folder, s3://bucket/prefix, dropbox:///folder, gdrive:///folder.

    >>> store_at("s3://models/app")
    Use(use='s3', url='s3://models/app')
    >>> store_at("/mnt/shared").options
    {'path': '/mnt/shared'}
    """
    scheme, found, _ = place.partition("://")
    if not found or scheme == "file":
        return Use.model_validate({"use": "local", "path": place})
    return Use.model_validate({"use": scheme, "url": place})


class CollectConfig(Section):
    """What comes in, and on whose word."""

    sources: tuple[Use, ...] = ()
    """Places to pull samples from."""
    consent: bool = True
    """Refuse samples that do not say that their subject has agreed. Turn it off only for data about no person."""
    folders: tuple[str, ...] = ("data",)
    """Folders, below the project's, from which a training may be given a file of its own."""
    correction_within: Duration = timedelta(minutes=10)
    """How old the newest prediction of a session may be for an outcome, or a repeated question, to be about it."""
    repeat_is_correction: bool = False
    """Count an answer as wrong when its session asks nearly the same again within that time."""
    max_upload: int = Field(64 * 1024 * 1024, ge=1024)
    """Largest model that a device may send, in bytes."""
    upload_memory_mb: int = Field(256, ge=128)
    """Most memory the examination of such a model may take, in MiB, libraries and all."""
    upload_time: Duration = timedelta(seconds=60)
    """Longest the examination of such a model may take."""
    upload_latency_ms: float = Field(100.0, gt=0)
    """Longest mean time in which such a model must answer one input."""


class DatasetConfig(Section):
    """How versions are cut."""

    holdout: float = Field(0.2, gt=0, le=0.5)
    """Share of samples never trained on; a sample never changes sides."""
    split: Literal["auto", "time", "hash"] = "auto"
    """By time (the newest of each batch are held out), by a hash of the group or id, or as the recipe says."""
    max_holdout: int = Field(4000, ge=10)
    """Judge by at most this many held-out samples, the newest."""
    max_train: int | None = Field(None, ge=10)
    """Learn from at most this many samples, the newest."""


class TriggerConfig(Section):
    """When to train."""

    auto: bool = True
    """Train without being asked."""
    every: Duration | None = None
    """Look at this interval, train if there are `min_size` samples and any is new."""
    min_new: int | None = Field(None, ge=1)
    """Train as soon as this many new samples were collected."""
    pending_models: int | None = Field(None, ge=1)
    """Train as soon as this many models from devices wait to be used."""
    min_size: int = Field(1, ge=1)
    """Never train on fewer samples than this, unless forced."""
    cooldown: Duration = timedelta(0)
    """Time that must pass between the starts of two trainings, unless asked for."""
    drift: bool = False
    """Train once live traffic is no longer what the champion learnt from, and there are new labelled samples."""
    drift_min_new: int = Field(50, ge=1)
    """New labelled samples that it takes; twice as many for each further training under one alarm."""


class GateConfig(Section):
    """What a candidate must prove on the holdout."""

    metric: str = "accuracy"
    """The score that decides."""
    rule: Literal["non_inferiority", "superiority"] = "non_inferiority"
    """Must it be no worse than the champion by more than `margin`, or better by more than `margin`?"""
    margin: float = Field(0.01, ge=0)
    """The difference that does not matter (or, for superiority, that is asked for)."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of the interval around the difference."""
    benefit: bool = True
    """Where no held-out row is answered worse, ask how often one worse by `margin` would show that, not the interval."""
    floors: dict[str, float] = {}
    """Scores below which a model is rejected, whatever the champion does."""
    min_rows: int = Field(30, ge=1)
    """With fewer held-out rows than this a comparison with the champion decides nothing."""
    max_latency_ms: float | None = Field(None, gt=0)
    """Longest mean time to answer one input in the serving process."""
    max_size_mb: float | None = Field(None, gt=0)
    """Largest artifact."""
    max_ece: float | None = Field(None, gt=0, le=1)
    """Largest expected calibration error: how far probabilities may lie from what comes true (0.05 is 5 points)."""
    slices: tuple[str, ...] = ()
    """Parts of the holdout judged by themselves: columns of the input ("device", "person.age"), "label" or "origin"."""
    slice_margin: float = Field(0.02, ge=0)
    """A part that is certainly worse by more than this turns a model away, however good the rest is."""
    slice_rows: int = Field(30, ge=1)
    """Parts with fewer held-out rows than this are reported and decide nothing."""
    golden: str | None = None
    """File, below the project's folder, of cases that must or should be answered in a known way (JSON lines)."""
    looks: int = Field(20, ge=1)
    """Warn when more candidates than this were judged on mostly the same held-out rows."""
    correct_looks: bool = False
    """Ask for more certainty with every candidate judged on the same rows, so that all together err no more often."""


class EvidenceConfig(Section):
    """What live traffic must show before a canary becomes champion, where `rollout.rule` is "evidence"."""

    metric: Literal["accuracy", "score"] = "accuracy"
    """Share of judged answers that were right, or the mean of outcomes that come as figures."""
    prove: Literal["non_inferiority", "superiority"] = "non_inferiority"
    """Is it to be no worse than the champion by more than `margin`, or better by more than `margin`?"""
    margin: float = Field(0.02, ge=0)
    """The difference that does not matter (or, for superiority, that is asked for), in units of the metric."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Chance that a model becomes champion which is not good enough, however often is looked."""
    burn_in: int = Field(50, ge=2)
    """Outcomes of each variant before the asymptotic evidence counts."""
    harm: float = Field(0.1, gt=0)
    """The loss, in units of the metric, that is to be found soonest; looked for from the first outcome."""
    harm_alpha: float = Field(0.18, gt=0, lt=1)
    """Chance that a model is taken back which is no worse than the champion."""
    deadline: Duration | None = timedelta(days=7)
    """How long to wait for evidence, from the first share of the traffic."""
    at_deadline: Literal["keep", "promote"] = "keep"
    """What to do then: keep the champion, or promote the canary all the same."""


class RolloutConfig(Section):
    """How a passed model takes over."""

    steps: tuple[Share, ...] = (0.0, 0.1, 0.5, 1.0)
    """Shares of traffic, rising: 0 is shadow, 1 is champion."""
    hold: Duration = timedelta(minutes=10)
    """How long each step must last before the next."""
    min_answers: int = Field(0, ge=0)
    """Answers a canary must have given in a step before the next."""
    max_error_rate: Share = 0.02
    """Take a model back when more of its answers fail (once three did)."""
    max_latency_ms: float | None = Field(None, gt=0)
    """Take a canary back when its mean answer takes longer; one outlier is not enough."""
    max_slowdown: float | None = Field(None, ge=1)
    """Take a canary back when its mean answer takes longer than this many times the champion's."""
    rule: Literal["time", "evidence"] = "time"
    """Does a canary become champion after its last hold time, or once live traffic has shown that it may?"""
    evidence: EvidenceConfig = EvidenceConfig()
    keep: int | None = Field(None, ge=1)
    """Versions whose files are kept beside the champion, its predecessor and those on their way; all if not set."""

    @field_validator("steps")
    @classmethod
    def _rising(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        if not steps or list(steps) != sorted(set(steps)) or steps[-1] != 1.0:
            raise ValueError("steps must rise and end with 1.0, for example [0.0, 0.1, 0.5, 1.0]")
        return steps

    @model_validator(mode="after")
    def _comparable(self) -> RolloutConfig:
        if self.rule == "evidence" and not any(0 < s < 1 for s in self.steps):
            raise ValueError("evidence needs a step between 0 and 1, for example [0.5, 1.0]")
        return self


class ServeConfig(Section):
    """Who answers, and what is written down of it."""

    log: Literal["all", "off"] = "all"
    """Store every prediction as a sample without a label, with the id that feedback joins."""
    keep_warm: int = Field(1, ge=0)
    """Former champions kept loaded, so that a rollback takes no time."""


class DriftConfig(Section):
    """When live traffic counts as another than the champion learnt from."""

    watch: bool = True
    """Compare what is asked and answered with what the champion learnt from and used to answer."""
    window: int = Field(1000, ge=100, le=20_000)
    """Newest stored predictions that are compared."""
    min_rows: int = Field(200, ge=50)
    """With fewer predictions than this nothing is said."""
    effect: float = Field(0.1, gt=0)
    """Population stability index, less what chance explains, from which a difference matters."""
    confidence: float = Field(0.999, gt=0.5, lt=1)
    """How sure the tests must be, over all features together."""
    fall: float = Field(0.05, gt=0, lt=1)
    """Fall of the share of right answers, where labels come, that matters."""


class LoopConfig(Section):
    """One model that is kept fresh."""

    recipe: Use
    """Which kind of model, with its own options."""
    runner: Use = Use(use="process")
    """Where training happens."""
    collect: CollectConfig = CollectConfig()
    dataset: DatasetConfig = DatasetConfig()
    trigger: TriggerConfig = TriggerConfig()
    gate: GateConfig = GateConfig()
    rollout: RolloutConfig = RolloutConfig()
    serve: ServeConfig = ServeConfig()
    drift: DriftConfig = DriftConfig()
    retries: int = Field(3, ge=0)
    """How often a training whose worker was lost is tried again."""
    time_limit: Duration | None = None
    """Longest a training may take."""
    seed: int = 0
    """Start of every random choice of a training."""


class RateConfig(Section):
    """How many calls each server process takes from one caller; five seconds' worth may come at once. 0 is no limit."""

    key: float = Field(5000, ge=0)
    """Calls a second with one key."""
    anonymous: float = Field(200, ge=0)
    """Calls a second without a key, or with one that is not known, from one address."""
    login: float = Field(10, ge=0)
    """Attempts a minute to sign in that fail, from one address."""


class HttpConfig(Section):
    """Who may call, from where."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(5001, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    processes: int = Field(1, ge=1, le=64)
    """Server processes that share the port; all change version together. About one for each core is enough."""
    cors: tuple[str, ...] = ()
    """Origins of browsers' pages that may predict, collect and read; "*" for all."""
    hosts: tuple[str, ...] = ()
    """Further names this server is reached by."""
    max_body: int = Field(8 * 1024 * 1024, ge=1024)
    """Largest request, in bytes."""
    anonymous: Literal["none", "app", "reviewer", "operator", "admin"] | None = None
    """Role of callers without a key. Not set: admin while no key exists and only this machine can call, else none."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    rate: RateConfig = RateConfig()
    audit: Duration = timedelta(days=90)
    """How long the audit log is kept."""

    @field_validator("proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            ipaddress.ip_network(proxy)  # says itself what is wrong
        return proxies


class SubscriberConfig(Use):
    """Somebody who is told what happens; the other keys are those of the plugin."""

    use: str
    """The plugin: `webhook`, `apprise`, `mlflow`, or one of your own."""
    name: str = Field("", pattern=r"^([a-z][a-z0-9_-]{0,62})?$")
    """What it is called on the command line and in figures; the plugin's name if not set."""
    events: tuple[str, ...] = ()
    """Kinds of events it is told: "alarm", "new champion", "model" …; not set: what the plugin thinks fit."""
    loops: tuple[str, ...] = ()
    """Loops it is told of; all if not set."""
    give_up: Duration = timedelta(days=3)
    """How long one event is tried again before it is left out, with a line in the history."""
    collapse: Duration | None = None
    """Events of one kind within this time after one that was told become one message; not set: as the plugin says."""

    @property
    def called(self) -> str:
        """Its name, or else the plugin's."""
        return self.name or self.use.rpartition(":")[2].lower()


class Config(Section):
    """The whole file."""

    ledger: Use = Use(use="sql")
    """Where records are kept."""
    store: Use = Use(use="local")
    """Where datasets and models are kept; EVERGREEN_STORE, a URL or a path, goes before it."""
    state: str = ".evergreen"
    """Folder, below the project's, for the ledger, the store and what is at work."""
    tick: Duration = timedelta(seconds=2)
    """How often every loop is looked at."""
    http: HttpConfig = HttpConfig()
    doors: tuple[Use, ...] = ()
    """Paths, shapes and files of a system that was there before Evergreen."""
    subscribers: tuple[SubscriberConfig, ...] = ()
    """Who is told what happens: webhooks, people, other systems."""
    loops: dict[str, LoopConfig] = {}
    """The models, by name."""

    @model_validator(mode="after")
    def _names(self) -> Config:
        called = [s.called for s in self.subscribers]
        if twice := sorted({name for name in called if called.count(name) > 1}):
            raise ValueError(f'two subscribers are called "{twice[0]}": give each a `name`')
        for subscriber in self.subscribers:
            for loop in set(subscriber.loops) - set(self.loops):
                raise ValueError(f'subscriber "{subscriber.called}": there is no loop "{loop}"')
        for name in self.loops:
            if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name):
                raise ValueError(f'loop "{name}": a name is lower-case letters, digits, - and _')
        return self


def problems(e: ValidationError, place: str = "") -> str:
    """Say what is wrong, one sentence for each mistake: key, what stands there, what is allowed."""
    said = []
    for err in e.errors(include_url=False):
        where = ".".join(str(part) for part in (place, *err["loc"]) if part != "")
        message = err["msg"].removeprefix("Value error, ")
        if err["type"] == "extra_forbidden":
            said.append(f"{where}: there is no such key")
        elif err["type"] == "missing":
            said.append(f"{where}: is missing")
        else:
            said.append(f"{where}: {message} (it is {err['input']!r})")
    return "; ".join(said)


def parse(raw: Mapping[str, Any], place: str = "evergreen.toml") -> Config:
    """Check settings; every mistake is reported at once, with its place."""
    try:
        return Config.model_validate(raw)
    except ValidationError as e:
        first = ".".join(str(p) for p in e.errors()[0]["loc"])
        raise ConfigError(f"{place}: {problems(e)}", field=first) from e


def read(path: Path) -> dict[str, Any]:
    """Read evergreen.toml without checking it yet."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {path.name} in {path.parent}",
            hint="Go to the project's folder, or make one: evergreen init DIR",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise ConfigError(f"{path}: {e}") from e
