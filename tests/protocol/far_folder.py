"""A shared folder as it really is: one truth, and for every machine a view that lags, forgets and breaks off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

from evergreen.core.errors import Conflict, Corrupt, NotFound, Unavailable
from evergreen.core.ports import Moved

#: Between the key of a stored folder and what is in it.
_IN = "@/"
_MANIFEST = "@/manifest.json"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Weather:
    """What a shared folder does to those who use it."""

    name: str = "strong"
    exclusive: bool = True  #: the product has a put-if-absent with one winner
    upload_s: float = 0.0  #: longest time until what was written has left the writer's machine
    lag_s: float = 0.0  #: longest time until a reader's machine hears of it
    own: bool = True  #: a machine sees at once what it wrote itself
    mirrored: bool = False  #: there is a copy on every machine: one that is cut off works on with it
    refused: float = 0.0  #: share of operations that end in `Unavailable`; half of them have taken effect

    @property
    def staleness_s(self) -> float:
        """Seconds after which everybody sees what was stored."""
        return self.upload_s + self.lag_s


STRONG = Weather()
#: An object store over its API: reads are true, lists and mirrors lag a little, calls fail now and then.
API = Weather("api", lag_s=2.0, refused=0.02)
#: A folder that a program keeps in step: everything comes late, in any order, and nothing is exclusive.
SYNCED = Weather("synced", exclusive=False, mirrored=True, upload_s=6.0, lag_s=6.0, refused=0.01)
#: The same, to those who do not even see their own files at once.
MOUNTED = Weather("mounted", exclusive=False, mirrored=True, upload_s=3.0, lag_s=9.0, own=False, refused=0.02)


@dataclass(slots=True)
class Version:
    """What stood under a name from `at` on; no bytes, if it was deleted."""

    at: float
    data: bytes | None
    by: str


@dataclass
class Truth:
    """Every name of the folder with all it ever held. Fair weather, once `settled`."""

    chance: Random
    weather: Weather
    now: Callable[[], float]
    versions: dict[str, list[Version]] = field(default_factory=dict)
    settled: bool = False
    #: Machines that are cut off, and since when.
    cut_off: dict[str, float] = field(default_factory=dict)

    def write(self, name: str, data: bytes | None, machine: str) -> None:
        """Let a name hold something from when it has left the machine; later words on one name stay later."""
        held = self.versions.setdefault(name, [])
        late = self._delay(self.weather.upload_s) if machine not in self.cut_off else 1e9
        at = max(self.now() + late, held[-1].at if held and held[-1].by == machine else 0.0)
        held.append(Version(at, data, machine))
        held.sort(key=lambda version: version.at)

    def reconnect(self, machine: str) -> None:
        """Let out what a machine wrote while it was cut off, and let it see again."""
        if self.cut_off.pop(machine, None) is not None:
            for held in self.versions.values():
                at = self.now()
                for version in held:
                    if version.by == machine and version.at > 1e8:
                        version.at = at = max(at, self.now() + self._delay(self.weather.upload_s))
                held.sort(key=lambda version: version.at)

    def power_cut(self, machine: str) -> None:
        """Lose some of what had not yet left a machine."""
        for held in self.versions.values():
            held[:] = [v for v in held if v.by != machine or v.at <= self.now() or self.chance.random() < 0.5]

    def settle(self) -> None:
        """Let everybody see everything from now on."""
        self.settled = True
        for machine in list(self.cut_off):
            self.reconnect(machine)
        for held in self.versions.values():
            for version in held:
                version.at = min(version.at, self.now())

    def read(self, name: str, machine: str) -> bytes | None:
        """Return what a machine finds under a name: what stood there at some moment of the recent past."""
        held = self.versions.get(name)
        if not held:
            return None
        moment = self._moment(machine)
        for version in reversed(held):
            if version.at <= moment or (self.weather.own and version.by == machine):
                return version.data
        return None

    def arrived(self, name: str) -> bytes | None:
        """Return what stands under a name now, for whoever is not behind."""
        there = [version.data for version in self.versions.get(name, ()) if version.at <= self.now()]
        return there[-1] if there else None

    def newest(self, name: str) -> bytes | None:
        """Return what will stand under a name when all has come through."""
        held = self.versions.get(name)
        return held[-1].data if held else None

    def _moment(self, machine: str) -> float:
        return min(self.now(), self.cut_off.get(machine, 1e18)) - self._delay(self.weather.lag_s)

    def _delay(self, most: float) -> float:
        if self.settled or not most or self.chance.random() < 0.5:
            return 0.0
        return most * self.chance.random()


class View:
    """Keeps the promises of `Store` as one machine has them; every operation is a turn that others may come before."""

    def __init__(self, truth: Truth, machine: str, turn: Callable[[str], None]) -> None:
        self._truth = truth
        self._machine = machine
        self._turn = turn
        self.exclusive = truth.weather.exclusive
        self.staleness_s = truth.weather.staleness_s

    def put(self, key: str, folder: Path, moved: Moved | None = None) -> Mapping[str, str]:
        """Store a folder file by file, the manifest last."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}  # fmt: skip
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = json.dumps({"files": digests}, sort_keys=True).encode()
        there = self._read(key + _MANIFEST)
        if there is not None and there != manifest:
            raise Conflict(f'"{key}" is stored already, with other content')
        for name, data in files.items():
            self._do(f"put {key} {name}", lambda name=name, data=data: self._write(f"{key}{_IN}{name}", data))  # type: ignore[misc]
            if moved is not None:
                moved(1, 1)
        self._do(f"put {key}", lambda: self._write(key + _MANIFEST, manifest))
        return digests

    def get(self, key: str, folder: Path, moved: Moved | None = None) -> None:
        """Copy a folder out, verified; what has not come through yet is `NotFound` or `Corrupt`."""
        self._do(f"get {key}", lambda: None)
        manifest = self._read(key + _MANIFEST)
        if manifest is None:
            raise NotFound(f'the store has no folder "{key}"')
        files = {}
        for name, digest in json.loads(manifest)["files"].items():
            files[name] = self._read(f"{key}{_IN}{name}")
            self._verify(key, name, files[name], digest)
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data or b"")
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, key: str, data: bytes) -> None:
        """Store a small object in place of what was there."""
        self._do(f"write {key}", lambda: self._write(key, data))

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a small object if there is none: truly, or as far as this machine can see."""

        def put() -> bool:
            known = self._truth.newest(key) if self.exclusive else self._read(key)
            if known is None:
                self._write(key, data)
            return known is None

        return self._do(f"put_new {key}", put)

    def read(self, key: str) -> bytes:
        """Return a small object as this machine has it."""
        data = self._do(f"read {key}", lambda: self._read(key))
        if data is None:
            raise NotFound(f'the store has no object "{key}"')
        return data

    def list(self, prefix: str = "") -> Sequence[str]:
        """List what this machine has heard of."""
        return self._do(f"list {prefix}", lambda: self._list(prefix.rstrip("/")))

    def delete(self, key: str) -> None:
        """Forget a key."""

        def forget() -> None:
            for name in list(self._truth.versions):
                if name == key or name.startswith(key + _IN):
                    self._write(name, None)

        self._do(f"delete {key}", forget)

    def _do(self, what: str, effect: Callable[[], _T]) -> _T:
        self._turn(what)
        truth = self._truth
        if self._machine in truth.cut_off and not truth.weather.mirrored:
            raise Unavailable("the folder is out of reach")
        if truth.settled or truth.chance.random() >= truth.weather.refused:
            return effect()
        if truth.chance.random() < 0.5:
            effect()
        raise Unavailable("the folder is out of reach")

    def _read(self, name: str) -> bytes | None:
        return self._truth.read(name, self._machine)

    def _write(self, name: str, data: bytes | None) -> None:
        self._truth.write(name, data, self._machine)

    def _list(self, prefix: str) -> Sequence[str]:
        names = (n for n in self._truth.versions if not prefix or n == prefix or n.startswith((prefix + "/", prefix + "@/")))  # fmt: skip
        seen = (n for n in names if (_IN not in n or n.endswith(_MANIFEST)) and self._read(n) is not None)
        return sorted({n.removesuffix(_MANIFEST) for n in seen})

    def _verify(self, key: str, name: str, data: bytes | None, digest: str) -> None:
        if data is None:
            raise Corrupt(f'"{key}" has lost its file {name}', field=name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise Corrupt(f'"{key}": the file {name} is not what was stored', field=name)
