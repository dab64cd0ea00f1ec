"""Stores of every product: a large upload broken in the middle, and many rounds of listing and reading while requests fail."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import report

from evergreen.core.config import store_at
from evergreen.core.plugins import make

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "backends"))

MIB = 1024 * 1024
SIZE, ROUNDS, FAULT_RATE = 1024 * MIB, 1000, 0.05


@dataclass(frozen=True)
class Product:
    """Where a store is, and the server behind it, if it has one that counts and fails on demand."""

    url: str
    environment: dict[str, str] = field(default_factory=dict)
    server: Any = None  #: a `FakeServer` of tests/backends


@contextmanager
def _local(folder: Path) -> Iterator[Product]:
    yield Product(f"file://{folder}/shared")


@contextmanager
def _s3(_: Path) -> Iterator[Product]:
    from s3_server import BUCKET, faulty_s3

    with faulty_s3() as server:
        yield Product(f"s3://{BUCKET}/bench", server.environment, server)


@contextmanager
def _dropbox(folder: Path) -> Iterator[Product]:
    from fake_dropbox import fake_dropbox

    with fake_dropbox(folder / "tls") as server:
        yield Product("dropbox:///bench", server.environment, server)


@contextmanager
def _drive(_: Path) -> Iterator[Product]:
    from fake_drive import fake_drive

    with fake_drive() as server:
        yield Product("gdrive:///bench", server.environment, server)


#: A new product is one more line here.
PRODUCTS: dict[str, Callable[[Path], AbstractContextManager[Product]]] = {
    "local": _local,
    "S3": _s3,
    "Dropbox": _dropbox,
    "Google Drive": _drive,
}


def main() -> None:
    """Measure and write `results/stores.md`; or, as a process of its own, be the client."""
    if len(sys.argv) > 1 and sys.argv[1] in CLIENTS:
        CLIENTS[sys.argv[1]](*sys.argv[2:])
        return
    table = []
    for name, product in PRODUCTS.items():
        with tempfile.TemporaryDirectory() as tmp, product(Path(tmp)) as at:
            table.append([name, *_broken_upload(Path(tmp), at), *_rounds(Path(tmp), at)])
            print(name, table[-1], flush=True)
    columns = (
        "product", "stored when the process was killed, MiB", "sent in all, MiB", "of the file's size", "upload s",
        "rounds", "requests", "of them failed on purpose", "rounds in which anything was lost", "rounds s",
    )  # fmt: skip
    notes = (
        f"A file of {SIZE // MIB:,} MiB; the process that uploads it is killed (SIGKILL) in the middle, a new one goes on; sent is what "
        "the server received in bodies of requests. The local store copies within one machine and begins again. "
        f"A round stores an object that must not be there, lists its folder, which must be exact, and reads one of all, "
        f"which must be whole; {FAULT_RATE:.0%} of the requests fail: 429, 503, a connection broken before, within or after the "
        "request, an answer cut off. S3 is ministack behind a proxy that fails; Dropbox and Drive are stand-ins "
        "(tests/backends/fake_dropbox.py, fake_drive.py) spoken to by the official clients. Seconds are of this machine, not of the products."
    )
    report("stores", "Stores: uploads that break, requests that fail", columns, table, notes)


def _broken_upload(tmp: Path, at: Product) -> list[Any]:
    folder = tmp / "in"
    folder.mkdir()
    with (folder / "model.bin").open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(random.randbytes(MIB))
    begin = time.monotonic()
    with _client(tmp, at, "upload", str(folder)) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) < SIZE // 2:
            pass
        child.send_signal(signal.SIGKILL)
    done, before = _received(at), SIZE // 2
    with _client(tmp, at, "upload", str(folder)) as child:
        assert child.stdout is not None
        told = [int(line) for line in child.stdout]
    if child.returncode or told[-1] != SIZE:
        raise RuntimeError(f"the upload to {at.url} did not come through")
    sent = _received(at) if at.server else before + SIZE
    with _client(tmp, at, "verify", str(folder)) as child:
        child.communicate()
    if child.returncode:
        raise RuntimeError(f"what came back from {at.url} is not what was stored")
    return [(done if at.server else before) / MIB, sent / MIB, sent / SIZE, time.monotonic() - begin]


def _rounds(tmp: Path, at: Product) -> list[Any]:
    met = 0
    if at.server:
        at.server.calls.clear()
        at.server.random, at.server.fault_rate = random.Random(7), FAULT_RATE
        take = at.server.fault

        def fault(line: str) -> Any:
            nonlocal met
            found = take(line)
            met += found is not None
            return found

        at.server.fault = fault
    begin = time.monotonic()
    with _client(tmp, at, "rounds") as child:
        said, _ = child.communicate()
    if child.returncode:
        raise RuntimeError(f"the rounds at {at.url} ended early")
    requests = sum(at.server.calls.values()) if at.server else 0
    return [ROUNDS, requests, met, len(json.loads(said)), time.monotonic() - begin]


@contextmanager
def _client(tmp: Path, at: Product, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Run this file as a client, in a process of its own."""
    child = subprocess.Popen(
        [sys.executable, __file__, command[0], str(tmp), at.url, *command[1:]],
        env={**os.environ, **at.environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        if child.stdout is not None:
            child.stdout.close()
        child.wait()


def _received(at: Product) -> int:
    return at.server.received if at.server else 0


def _store(tmp: str, url: str) -> Any:
    return make("stores", store_at(url), home=Path(tmp), state=Path(tmp, "state"))


def _upload(tmp: str, url: str, folder: str) -> None:
    _store(tmp, url).put("models/big", Path(folder), lambda done, _: print(done, flush=True))


def _verify(tmp: str, url: str, folder: str) -> None:
    with tempfile.TemporaryDirectory(dir=tmp) as out:
        _store(tmp, url).get("models/big", Path(out, "out"))  # verifies every byte
        assert [p.name for p in Path(out, "out").iterdir()] == [p.name for p in Path(folder).iterdir()]


def _list_and_read(tmp: str, url: str) -> None:
    """Print the rounds in which anything was not as it must be."""
    store, held, lost, chance = _store(tmp, url), dict[str, bytes](), [], random.Random(1)
    for n in range(ROUNDS):
        key, data = f"rounds/{n % 20}/{n}.json", b"%d " % n * 100
        new = store.put_new(key, data)
        held[key] = data
        listed = list(store.list(f"rounds/{n % 20}"))
        expected = sorted(k for k in held if k.startswith(f"rounds/{n % 20}/"))
        some = chance.choice(sorted(held))
        if not new or listed != expected or store.read(some) != held[some]:
            lost.append(n)
    print(json.dumps(lost))


CLIENTS: dict[str, Callable[..., None]] = {"upload": _upload, "verify": _verify, "rounds": _list_and_read}


if __name__ == "__main__":
    main()
