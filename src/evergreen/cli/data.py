"""Commands about data: take files in, list datasets, write one out."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from evergreen.cli import terminal
from evergreen.cli.opening import ConfigOption, JsonOption, LoopArgument, Misuse, opened, pick, shift
from evergreen.core.errors import EvergreenError, InvalidInput, NoConsent, NotFound

if TYPE_CHECKING:
    from evergreen.core.loop import Loop
    from evergreen.core.recipe import Row
    from evergreen.core.records import Reject, Sample

dataset = typer.Typer(no_args_is_help=True, help="List frozen datasets and write them out.")

#: Rejected lines that are shown of each file.
SHOWN = 5
STDIN = "stdin"


def collect(
    words: Annotated[
        list[str], typer.Argument(metavar="[LOOP] FILE…", help="CSV or JSON lines; - reads JSON lines from stdin.")
    ],
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Take files in as samples; a row that was taken in before is not counted again."""
    said = []
    with opened(config) as project:
        one, files = shift(project, words, "FILE")
        for name in files:
            if name != "-" and not Path(name).is_file():
                known = ", ".join(project.loops)
                raise Misuse(f"there is no file {name}", field="FILE", hint=f"The loops are: {known}")
        for name in files:
            said.append(_stdin(one) if name == "-" else _file(one, Path(name)))
    if as_json:
        terminal.put_json(said)
        return
    for s in said:
        print(f"{s['file']}: {s['new']} new, {s['known']} known already, {s['rejected']} rejected")
        for reject in s["rejects"]:
            terminal.say(f"  {reject['where']}: {reject['reason']}")
        if s["rejected"] > len(s["rejects"]):
            terminal.say(f"  … and {s['rejected'] - len(s['rejects'])} more, all of them in quarantine")


def _file(loop: Loop, path: Path) -> dict[str, Any]:
    from evergreen.stages.collect.ingest import Pull, pull_from

    source = loop.open_file(path.resolve())
    done = Pull(more=True)
    with terminal.progress() as show:
        while done.more:
            done += pull_from(loop, source, batches=1)
            show(f"collecting {path.name}", done.new + done.known + done.rejected, 0)
    newest = loop.ledger.rejects(loop.name, limit=min(done.rejected, 1000)) if done.rejected else ()
    rejects = [r for r in newest if r.origin == source.origin][::-1]
    return _said(str(path), done.new, done.known, done.rejected, rejects)


def _stdin(loop: Loop) -> dict[str, Any]:
    new = known = rejected = 0
    first: list[Reject] = []
    lines = enumerate(sys.stdin.buffer, start=1)
    with terminal.progress() as show:
        while batch := list(islice(lines, 1000)):
            samples, rejects = _read(loop, batch)
            fresh = loop.ledger.append(loop.name, samples, rejects=rejects)
            new += sum(fresh)
            known += len(fresh) - sum(fresh)
            rejected += len(rejects)
            first += rejects[: SHOWN - len(first)]
            show("collecting", new + known + rejected, 0)
    return _said("-", new, known, rejected, first)


def _read(loop: Loop, lines: list[tuple[int, bytes]]) -> tuple[list[Sample], list[Reject]]:
    """Turn lines into samples; a line without an id gets one from its content, so that twice is once."""
    from evergreen.core.records import Reject
    from evergreen.stages import collect

    samples, rejects = [], []
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise InvalidInput("a sample is a JSON object")
            own = None if "id" in row else hashlib.blake2b(line.strip(), digest_size=16).hexdigest()
            samples.append(collect.admit(loop, row, origin=STDIN, id=own))
        except (ValueError, InvalidInput, NoConsent) as e:
            why = str(e) if isinstance(e, EvergreenError) else f"not JSON: {e}"
            raw = line.decode(errors="replace")[:2000]
            rejects.append(Reject(origin=STDIN, where=f"line {number}", raw=raw, reason=why))
    return samples, rejects


def _said(name: str, new: int, known: int, rejected: int, rejects: list[Reject]) -> dict[str, Any]:
    shown = [{"where": r.where, "reason": r.reason} for r in rejects[:SHOWN]]
    return {"file": name, "new": new, "known": known, "rejected": rejected, "rejects": shown}


@dataset.command("list")
def list_(
    loop: LoopArgument = None, config: ConfigOption = Path("evergreen.toml"), as_json: JsonOption = False
) -> None:
    """List the frozen datasets of a loop, newest first."""
    from evergreen.core.records import Dataset

    with opened(config) as project:
        one = pick(project, loop)
        found = one.ledger.find(Dataset, one.name, newest_first=True)
    rows = [
        {
            "version": d.version,
            "train": d.train,
            "holdout": d.holdout,
            "origin": d.origin,
            "digest": d.digest,
            "at": d.at,
        }
        for d in found
    ]
    if as_json:
        terminal.put_json(rows)
    elif rows:
        drawn = [
            [f"v{d.version}", d.train, d.holdout, d.origin or "all", d.digest[:12], terminal.ago(d.at)] for d in found
        ]
        terminal.table(["version", ">train", ">holdout", "of", "digest", "frozen"], drawn)
    else:
        print(f"{one.name} has no dataset yet; the first training freezes one.")


@dataset.command()
def export(
    loop: LoopArgument = None,
    format: Annotated[str, typer.Option("--format", "-f", help="csv or jsonl.")] = "jsonl",
    side: Annotated[str, typer.Option("--side", help="train, holdout or all.")] = "all",
    version: Annotated[int | None, typer.Option("--version", help="Which dataset; else the last.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A new file; else standard output.")] = None,
    config: ConfigOption = Path("evergreen.toml"),
) -> None:
    """Write a frozen dataset out."""
    if format not in ("csv", "jsonl"):
        raise Misuse(f'"{format}" is not a format', field="--format", hint="There are: csv, jsonl")
    if side not in ("train", "holdout", "all"):
        raise Misuse(f'"{side}" is not a side', field="--side", hint="There are: train, holdout, all")
    with opened(config) as project, tempfile.TemporaryDirectory() as temporary:
        one, folder = pick(project, loop), Path(temporary) / "dataset"
        number = _fetch(one, version, folder)
        sides = ("train", "holdout") if side == "all" else (side,)
        with _opened(out) as stream:
            n = (_csv if format == "csv" else _jsonl)(folder, sides, stream)
    terminal.say(f"{n} rows of dataset {number} of {one.name}" + (f" in {out}" if out else ""))


def _fetch(loop: Loop, version: int | None, folder: Path) -> int:
    from evergreen.core.records import Dataset

    for found in loop.ledger.find(Dataset, loop.name, newest_first=True):
        if version in (None, found.version):
            loop.store.get(found.key, folder)
            return found.version
    which = "no dataset yet" if version is None else f"no dataset {version}"
    raise NotFound(f"{loop.name} has {which}", field="--version", hint=f"evergreen dataset list {loop.name}")


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    try:
        with out.open("x", encoding="utf-8", newline="") as stream:
            yield stream
    except FileExistsError:
        raise Misuse(f"{out} exists already", field="--out", hint="Name another file.") from None


def _rows(folder: Path, sides: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    from evergreen.core.recipe import read_rows

    for side in sides:
        file = folder / side / f"{side}.jsonl"
        if not file.exists():
            raise NotFound(f"the recipe of this loop does not keep its {side} rows as JSON lines")
        for row in read_rows(file):
            yield side, row


def _plain(side: str, row: Row) -> dict[str, Any]:
    more = {k: v for k, v in (("weight", row.weight), ("group", row.group), ("time", row.time)) if v is not None}
    return {"id": row.id, "side": side, "input": row.input, "label": row.label, **more}


def _jsonl(folder: Path, sides: tuple[str, ...], stream: TextIO) -> int:
    n = 0
    for side, row in _rows(folder, sides):
        stream.write(json.dumps(_plain(side, row), ensure_ascii=False) + "\n")
        n += 1
    return n


def _flat(side: str, row: Row) -> dict[str, Any]:
    """Spread an input with named fields over columns; lists and mappings stay JSON."""
    plain = _plain(side, row)
    value = plain.pop("input")
    named = value if isinstance(value, Mapping) else {"input": value}
    cells = {"id": plain.pop("id"), "side": plain.pop("side")}
    cells |= {k if k not in plain and k not in cells else f"input_{k}": v for k, v in named.items()}
    cells |= plain
    return {k: json.dumps(v, ensure_ascii=False) if isinstance(v, dict | list) else v for k, v in cells.items()}


def _csv(folder: Path, sides: tuple[str, ...], stream: TextIO) -> int:
    columns: dict[str, None] = {}
    for side, row in _rows(folder, sides):
        columns |= dict.fromkeys(_flat(side, row))
    writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
    writer.writeheader()
    n = 0
    for side, row in _rows(folder, sides):
        writer.writerow(_flat(side, row))
        n += 1
    return n
