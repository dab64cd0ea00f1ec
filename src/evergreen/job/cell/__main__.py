"""`python -I -m evergreen.job.cell`: the inside of the cell. Reads one request on stdin, answers on descriptor argv[1]."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, InvalidInput
from evergreen.core.ports import Format
from evergreen.core.recipe import Interface, Predictor, Recipe, Row, read_rows
from evergreen.job.cell import files, lock, trial

#: Answers that are timed.
_TIMED = 20
_DESCRIPTORS = 4096
_MEMORY = "it used too much memory"
_ALLOW = "Send a smaller model, or allow more: collect.upload_memory_mb."
_STARVED = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Unable to allocate", "alloc failed")
#: What is used later is loaded before the lock is closed.
_NEEDED = ("numpy.random", "onnxruntime")


def main(pipe: int) -> NoReturn:
    """Make ready, lock up, work, answer, end. Whatever goes wrong is an answer, too."""
    asked = json.load(sys.stdin.buffer)
    os.dup2(1, 0)  # nothing is read any more; what is written there goes nowhere, too
    readable = files.libraries()  # before the server's own places are added, where its secrets may lie
    layers = lock.isolate(partial(_leave, pipe))
    try:
        work = _Work(asked)
    except ConfigError as e:
        _end(pipe, {"broken": str(e), "hint": e.hint})
    except Exception as e:  # noqa: BLE001 - a plugin may raise anything when it is imported
        _end(pipe, {"broken": f"{type(e).__name__}: {e}", "hint": None})
    os.closerange(3, pipe)  # what a library may have opened
    os.closerange(pipe + 1, _DESCRIPTORS)
    layers = lock.close(Path(asked["scratch"]), readable, layers, **asked["bounds"])
    os.environ.clear()
    tempfile.tempdir = "tmp"
    _say(pipe, {"layers": layers})
    _end(pipe, {} if asked["probe"] else work.answer())


class _Work:
    """What is to be done with one file; built, with all it needs imported, before the lock is closed."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        sys.path += [place for place in asked["path"] if place not in sys.path]
        self.file = Path("in") / asked["name"]
        self.rows: Sequence[Row] = ()
        if asked["probe"]:
            return
        self.format: Format = plugins.make("formats", Use(**asked["format"]))
        self.recipe: Recipe = plugins.make("recipes", Use(**asked["recipe"]))
        if asked["rows"]:
            self.rows = list(islice(read_rows(Path(asked["rows"])), asked["most_rows"]))
        for name in _NEEDED:
            import_module(name)

    def answer(self) -> dict[str, Any]:
        """Read, try and score; say what came of it, or why it cannot be used."""
        doing = "read"
        try:
            interface = self.format.read(self.file, Path("out"))
            Path("out/interface.json").write_bytes(msgspec.json.encode(interface))
            doing = "tried"
            return {"interface": msgspec.to_builtins(interface), **self.tried(interface)}
        except InvalidInput as e:
            return {"refused": _MEMORY if _starved(e) else str(e), "hint": _ALLOW if _starved(e) else e.hint}
        except RecursionError:
            return {"refused": "it is nested too deeply", "hint": None}
        except Exception as e:  # noqa: BLE001 - a hostile file may raise anything
            if _starved(e):
                return {"refused": _MEMORY, "hint": _ALLOW}
            return {"refused": f"it could not be {doing}: {type(e).__name__}: {e}", "hint": None}

    def tried(self, interface: Interface) -> dict[str, Any]:
        bare_ms = trial.answers(Path("out/model.onnx"), interface)
        predictor = self.recipe.adopt(Path("out"), interface)
        try:
            if not self.rows:
                return {"scores": {}, "ms": bare_ms}
            ms = _ms_per_answer(predictor, self.rows)
            figures = self.recipe.score(predictor, self.rows)
            means = {name: float(sum(of) / len(of)) for name, of in figures.items() if len(of)}
            return {"scores": means, "ms": ms}
        finally:
            predictor.close()


def _starved(e: BaseException) -> bool:
    """Say whether it was for want of memory, in the words of Python and of C++ libraries."""
    return isinstance(e, MemoryError) or any(words in str(e) for words in _STARVED)


def _ms_per_answer(predictor: Predictor, rows: Sequence[Row]) -> float:
    predictor.predict([rows[0].input])
    some = rows[:_TIMED]
    start = time.perf_counter()
    for row in some:
        predictor.predict([row.input])
    return (time.perf_counter() - start) * 1000 / len(some)


def _leave(pipe: int, child: int) -> None:
    """Say who works, and say no more."""
    _say(pipe, {"pid": child})
    os.close(pipe)


def _say(pipe: int, said: Mapping[str, Any]) -> None:
    data = json.dumps(said).encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


def _end(pipe: int, said: Mapping[str, Any]) -> NoReturn:
    _say(pipe, {"result": said})
    os._exit(0)  # no destructor of a library has a last word


if __name__ == "__main__":
    main(int(sys.argv[1]))
