"""`evergreen doctor`: what might keep this project from working, and the remedy for each."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from evergreen.cli import terminal
from evergreen.cli.opening import NAME, ConfigOption, JsonOption, find, server
from evergreen.core.errors import EvergreenError

if TYPE_CHECKING:
    from evergreen.project import Project

#: What each extra brings, by the names under which it is imported.
EXTRAS = {
    "serve": (
        "starlette",
        "uvicorn",
        "jinja2",
        "itsdangerous",
        "prometheus_client",
        "sqlalchemy",
        "onnxruntime",
    ),
    "tabular": ("numpy", "sklearn", "onnx", "onnxruntime", "matplotlib"),
    "intent": ("numpy", "sklearn", "onnx", "onnxruntime", "matplotlib"),
    "postgresql": ("sqlalchemy", "psycopg"),
    "s3": ("boto3",),
    "dropbox": ("dropbox",),
    "drive": ("googleapiclient", "google.auth"),
}
#: What every project needs; the rest is needed by those that use it.
ALWAYS = ("serve",)
VERSIONS = ("pydantic", "msgspec", "typer", "httpx", "starlette", "sqlalchemy", "onnxruntime", "scikit-learn")
#: Free bytes below which to warn, and below which nothing works for long.
SCARCE, NONE_LEFT = 2 << 30, 200 << 20
#: Before this no clock is right.
RELEASED = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, and how it is."""

    check: str
    state: Literal["ok", "warn", "fail"]
    says: str
    remedy: str = ""


def doctor(config: ConfigOption = Path(NAME), as_json: JsonOption = False) -> None:
    """Look for what might go wrong, and say what to do about it."""
    findings = []
    for finding in examine(find(config)):
        findings.append(finding)
        if not as_json:
            _print(finding)
    failed = sum(f.state == "fail" for f in findings)
    if as_json:
        terminal.put_json({"ok": not failed, "checks": [asdict(f) for f in findings]})
    else:
        warned = sum(f.state == "warn" for f in findings)
        print(f"\n{len(findings)} checks: {failed} failed, {warned} to look at.")
    raise typer.Exit(1 if failed else 0)


def _print(f: Finding) -> None:
    print(f"{f.state:<5} {f.check:<14} {f.says}")
    if f.remedy and f.state != "ok":
        print(f"{'':<20} → {f.remedy}")


def examine(config: Path) -> Iterator[Finding]:
    """Make every check that can be made; what cannot be opened ends those that need it."""
    yield _python()
    yield _versions()
    yield from _extras(ALWAYS)
    yield _clock()
    yield _cell()
    from evergreen import project

    try:
        opened = project.open(config)
    except EvergreenError as e:
        yield Finding("configuration", "fail", str(e), e.hint or "Correct the file.")
        return
    except OSError as e:
        yield Finding("configuration", "fail", f"{type(e).__name__}: {e}", "Give this user the right to write there.")
        return
    try:
        yield _configuration(opened, config)
        yield from _extras(_needed(opened))
        for look in (_ledger, _store, _disk):
            yield _guarded(look, opened)
        yield from _sources(opened)
        yield from _golden(opened)
        yield from _serving(opened)
    finally:
        opened.ledger.close()


def _guarded(look: Callable[[Project], Finding], project: Project) -> Finding:
    try:
        return look(project)
    except EvergreenError as e:
        return Finding(look.__name__[1:], "fail", str(e), e.hint or "")
    except Exception as e:  # noqa: BLE001 - a backend may raise anything; that is the finding
        return Finding(
            look.__name__[1:], "fail", f"{type(e).__name__}: {e}", "Look at its settings and its permissions."
        )


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", "ok", f"{version} at {sys.executable}")


def _versions() -> Finding:
    from evergreen import __version__

    found = []
    for name in VERSIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return Finding("packages", "ok", f"evergreen {__version__}, {', '.join(found)}")


def _needed(project: Project) -> list[str]:
    """Name the extras that a project's own settings call for; a training that is done elsewhere needs nothing here."""
    here = [loop.recipe.use for loop in project.config.loops.values() if loop.runner.use != "folder"]
    ledger = "postgresql" if str(project.config.ledger.options.get("url", "")).startswith(("postgres", "env:")) else ""
    store = {"S3Store": "s3", "DropboxStore": "dropbox", "DriveStore": "drive"}.get(type(project.store).__name__, "")
    return [extra for extra in EXTRAS if extra in {*here, ledger, store}]


def _extras(extras: Sequence[str]) -> Iterator[Finding]:
    for extra in extras:
        lacking = [m for m in EXTRAS[extra] if not _installed(m)]
        if lacking:
            install = f"pip install 'evergreen-ml[{extra}]'"
            yield Finding(f"[{extra}]", "warn", f"not installed: {', '.join(lacking)}", install)
        else:
            yield Finding(f"[{extra}]", "ok", "installed")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of `google.auth`, where there is no `google` either
        return False


def _clock() -> Finding:
    now = datetime.now(UTC)
    if now < RELEASED:
        return Finding("clock", "fail", f"it says {now:%Y-%m-%d %H:%M} UTC", "Set this machine's clock (NTP).")
    return Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")


def _cell() -> Finding:
    """See which locks hold around models that devices send."""
    from evergreen.job.cell import layers

    try:
        found = layers()
    except EvergreenError as e:
        return Finding("cell", "warn", str(e), "Models from devices cannot be examined.")
    lacking = [f"{layer} ({why})" for layer, why in found.items() if why]
    says = f"{', '.join(layer for layer, why in found.items() if not why) or 'nothing'} around models from devices"
    if not lacking and found:
        return Finding("cell", "ok", says)
    alone = not found or found.get("seccomp") or (found.get("own root") and found.get("landlock"))
    told = f"{says}; not: {'; '.join(lacking) or 'anything'}"
    remedy = "Use Linux 5.13 or later, and a container that allows seccomp and Landlock, before strangers send models."
    return Finding("cell", "warn" if alone else "ok", told, remedy)


def _configuration(project: Project, path: Path) -> Finding:
    if not project.loops:
        return Finding("configuration", "warn", f"{path} has no loop", "Add a [loops.NAME] table.")
    return Finding("configuration", "ok", f"{path}: {', '.join(project.loops)}")


def _ledger(project: Project) -> Finding:
    from evergreen.core.records import Event

    revision = project.ledger.revision()
    probe = uuid.uuid4().hex
    project.ledger.remember("doctor", "probe", probe)
    if project.ledger.recall("doctor", "probe") != probe:
        return Finding("ledger", "fail", "it does not give back what it was given", "Look at the disk it is on.")
    project.ledger.remember("doctor", "probe", None)
    last = [e.at for name in project.loops if (e := project.ledger.last(Event, name)) and e.at]
    if last and max(last) > datetime.now(UTC) + timedelta(minutes=5):
        told = f"its last event is in the future: {max(last):%Y-%m-%d %H:%M} UTC"
        return Finding("ledger", "warn", told, "One of the clocks that wrote it was wrong, or this one is.")
    return Finding("ledger", "ok", f"{project.config.ledger.use}, revision {revision}: reads and writes")


def _store(project: Project) -> Finding:
    key, probe = f"doctor/{uuid.uuid4().hex}", b"evergreen doctor"
    project.store.put_new(key, probe)
    try:
        same = project.store.read(key) == probe
    finally:
        project.store.delete(key)
    if not same:
        return Finding(
            "store", "fail", "it does not give back what it was given", "Look at the disk or service behind it."
        )
    return Finding("store", "ok", f"{project.config.store.use}: reads and writes")


def _disk(project: Project) -> Finding:
    free = shutil.disk_usage(project.state).free
    says = f"{free / (1 << 30):.1f} GB free at {project.state}"
    if free < NONE_LEFT:
        return Finding("disk", "fail", says, "Make room: datasets and models cannot be stored.")
    return Finding("disk", "warn" if free < SCARCE else "ok", says, "Make room before models fill it.")


def _sources(project: Project) -> Iterator[Finding]:
    for loop in project.loops.values():
        for source in loop.sources:
            what = f"{loop.name}: {source.origin}"
            try:
                pulled = source.pull(None, 20)
            except EvergreenError as e:
                yield Finding("source", "warn", f"{what}: {e}", e.hint or "It is read again at every tick.")
                continue
            if pulled.rejects and not pulled.rows:
                first = pulled.rejects[0]
                told = f"{what}: none of its first rows can be read; {first.where}: {first.reason}"
                yield Finding("source", "warn", told, "Is the format as the settings say?")
            else:
                yield Finding("source", "ok", f"{what}: {'rows to read' if pulled.rows else 'nothing in it yet'}")


def _golden(project: Project) -> Iterator[Finding]:
    """See whether the cases that candidates are asked can be read: while they cannot, nobody is judged."""
    from evergreen.stages.gate import golden

    for loop in project.loops.values():
        if (name := loop.config.gate.golden) is None:
            continue
        try:
            cases = golden.read(loop.home / name)
        except EvergreenError as e:
            yield Finding(
                "golden cases", "fail", f"{loop.name}: {e}", e.hint or "No candidate is judged until they can."
            )
        else:
            must = sum(case.must for case in cases)
            yield Finding("golden cases", "ok", f"{loop.name}: {len(cases)}, of which {must} must be right")


def _serving(project: Project) -> Iterator[Finding]:
    if (running := server(project)) is not None:
        yield Finding("server", "ok", f"runs at {running.get('url', '?')}, pid {running.get('pid', '?')}")
        return
    yield Finding("server", "ok", "does not run: `evergreen up` starts it")
    http = project.config.http
    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((http.host, http.port))
    except OSError as e:
        told = f"{http.host}:{http.port} cannot be listened on: {e.strerror}"
        yield Finding("port", "fail", told, "Choose another: `http.port`, or `evergreen up --port N`.")
    else:
        yield Finding("port", "ok", f"{http.host}:{http.port} is free")
