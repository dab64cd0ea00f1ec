"""A cell: a locked-down process in which one file from a stranger is read, converted and tried."""

from __future__ import annotations

import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from evergreen.core.errors import ConfigError, InvalidInput, TooLarge
from evergreen.core.recipe import Interface
from evergreen.core.records import Json
from evergreen.job.cell.watch import Ended, Watched, watch

#: Bounds of what a model may say of itself.
_LABELS, _NAMES, _TEXT, _ABOUT = 1000, 20_000, 200, 64
_WIDTH = 1_000_000


@dataclass(frozen=True)
class Limits:
    """How much a file may use of this machine while it is examined."""

    file_mb: float = 64.0  #: the file itself
    seconds: float = 60.0  #: from beginning to end, by the wall clock
    memory_mb: int = 256  #: resident, libraries and all
    out_mb: int = 128  #: what may be written, all files together
    ms_per_answer: float = 100.0  #: for one input
    rows: int = 300  #: of the holdout, at most


@dataclass(frozen=True)
class Examined:
    """What a file turned out to be; `out` holds `model.onnx` and `interface.json`."""

    interface: Interface
    scores: Mapping[str, float]  #: means over the holdout rows; empty without any
    ms_per_answer: float
    details: Mapping[str, Json] = field(default_factory=dict)  #: `lockdown`: layers in force; `memory_mb`, `seconds`


def examine(
    file: Path,
    *,
    format: str,
    recipe: Mapping[str, Json],
    rows: Path | None,
    out: Path,
    limits: Limits | None = None,
) -> Examined:
    """Read, convert and try a file in a process that can do no harm; write what was made of it into `out`.

    `format` names the plugin that reads it, `recipe` ({"use": …}) the one that adopts and scores it on `rows`.
    Raises `InvalidInput` with the reason for whatever the file does wrong, `ConfigError` if a plugin is missing.
    """
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="cell-", dir=out.parent, ignore_cleanup_errors=True) as folder:
        scratch = Path(folder).absolute()
        _lay_out(scratch)
        name = f"model{file.suffix.lower()}"
        _take(file, scratch / "in" / name, limits.file_mb)
        asked = _request(scratch, limits) | {
            "name": name,
            "format": {"use": format},
            "recipe": dict(recipe),
            "rows": None if rows is None else str(rows.absolute()),
            "most_rows": limits.rows,
        }
        done = watch(asked, seconds=limits.seconds, memory_mb=limits.memory_mb, out_mb=limits.out_mb)
        examined = _judged(done, limits)
        _bring(scratch / "out", out, limits.out_mb)
        (out / "interface.json").write_bytes(msgspec.json.encode(examined.interface))
        return examined


def layers() -> Mapping[str, str]:
    """Say of every layer of the lock whether it works here: "" if it does, else why not."""
    with tempfile.TemporaryDirectory(prefix="cell-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder).absolute()
        _lay_out(scratch)
        asked = _request(scratch, Limits()) | {"probe": True, "name": ""}
        return watch(asked, seconds=30, memory_mb=Limits.memory_mb, out_mb=1).layers


def _request(scratch: Path, limits: Limits) -> dict[str, Any]:
    return {
        "probe": False,
        "scratch": str(scratch),
        "path": [str(Path(place).absolute()) for place in sys.path],
        "bounds": {"memory_mb": limits.memory_mb, "cpu_s": int(limits.seconds) + 1, "file_mb": limits.out_mb},
    }


def _lay_out(scratch: Path) -> None:
    scratch.chmod(0o711)
    for name in ("in", "out", "tmp"):
        (scratch / name).mkdir(mode=0o755)


def _take(file: Path, copy: Path, most_mb: float) -> None:
    """Copy the file, which must be one, into the cell."""
    with _plain(file) as (source, about):
        if about.st_size == 0:
            raise InvalidInput("the file is empty", field="model")
        if about.st_size > most_mb * 2**20:
            raise TooLarge(f"the file has more than {most_mb:g} MiB", field="model")
        with copy.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    copy.chmod(0o444)


@contextmanager
def _plain(file: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open what must be a plain file under one name: no link, pipe, device or folder. Raises `InvalidInput`."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise InvalidInput(f"the file cannot be opened: {e.strerror}", field="model") from e
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        os.close(fd)
        raise InvalidInput("this is not a file", field="model")
    with os.fdopen(fd, "rb") as source:
        yield source, about


def _judged(done: Watched, limits: Limits) -> Examined:
    """Make sense of what came out of the cell, trusting none of it."""
    if done.ended is not Ended.ANSWERED:
        raise InvalidInput(_why(done, limits), field="model")
    said = done.said
    if "broken" in said:
        raise ConfigError(_clean(said["broken"]), hint=_clean(said.get("hint") or "") or None)
    if "refused" in said:
        raise InvalidInput(_clean(said["refused"]), field="model", hint=_clean(said.get("hint") or "") or None)
    try:
        interface = msgspec.convert(said["interface"], Interface)
        scores = msgspec.convert(said["scores"], dict[str, float])
        ms = msgspec.convert(said["ms"], float)
    except (KeyError, msgspec.ValidationError) as e:
        raise InvalidInput(f"the examination gave no sound answer: {_clean(e)}", field="model") from e
    _check(interface)
    if len(scores) > _ABOUT or not all(map(math.isfinite, (ms, *scores.values()))):
        raise InvalidInput("the examination gave figures that are not numbers", field="model")
    if ms > limits.ms_per_answer:
        raise InvalidInput(
            f"it takes {ms:.0f} ms for one answer; {limits.ms_per_answer:g} ms is the most", field="model"
        )
    in_force = [layer for layer, lack in done.layers.items() if not lack]
    details: dict[str, Json] = {"lockdown": in_force, "memory_mb": done.memory_mb, "seconds": round(done.seconds, 2)}
    return Examined(interface, scores, ms, details)


def _why(done: Watched, limits: Limits) -> str:
    """Say what a file has done to its cell."""
    if done.ended is Ended.TIME:
        return f"it took longer than {limits.seconds:g} s to examine"
    if done.ended is Ended.MEMORY:
        return f"it used more than {limits.memory_mb} MiB of memory"
    if done.ended is Ended.DISK:
        return f"it wrote more than {limits.out_mb} MiB, or very many files"
    if done.ended is Ended.TALK:
        return "it gave an answer without end"
    return f"it crashed the process that examined it ({_clean(done.how)})"


def _check(interface: Interface) -> None:
    """Hold what a model says of itself to bounds, and to what an `Interface` must be."""

    def bounded(texts: Sequence[str], most: int, what: str, length: int = _TEXT) -> None:
        if len(texts) > most or any(not text or len(text) > length for text in texts):
            raise InvalidInput(f"{what}: at most {most}, of 1 to {length} characters each", field="model")

    bounded(interface.labels, _LABELS, "labels")
    bounded(interface.names, _NAMES, "names of what is counted")
    bounded([interface.input], 1, "name of the input")
    bounded(list(interface.about), _ABOUT, "metadata")
    bounded([text or " " for text in interface.about.values()], _ABOUT, "metadata", 10_000)
    if len(interface.labels) < 2 or len(set(interface.labels)) != len(interface.labels):
        raise InvalidInput("a model needs two labels or more, all different", field="model")
    if interface.kind == "counts" and not interface.names:
        raise InvalidInput("it counts nothing: names are missing", field="model")
    if interface.kind == "features" and not 0 < interface.width <= _WIDTH:
        raise InvalidInput(f"a width of {interface.width} is not from 1 to {_WIDTH}", field="model")


def _bring(made: Path, out: Path, most_mb: int) -> None:
    """Bring `model.onnx` out of the cell: a plain file of bounded size, copied, never followed anywhere."""
    out.mkdir(exist_ok=True)
    with _plain(made / "model.onnx") as (source, about):
        if about.st_nlink != 1 or not 0 < about.st_size <= most_mb * 2**20:
            raise InvalidInput("what was made of it is not a file of bounded size", field="model")
        with (out / "model.onnx").open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)


def _clean(said: object) -> str:
    """Return what was said as one bounded line of plain characters."""
    text = "".join(c if c.isprintable() else " " for c in str(said)[:2000])
    return " ".join(text.split())[:500]
