"""The layers of the lock: each is tried by itself, and what could not be had is told."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from evergreen.job.cell import calls, files, kernel

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER = 0x20000, 0x4000000, 0x8000000, 0x10000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_NAMESPACES = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
#: Users that nobody is: one for each cell, so that not even two cells can touch each other.
_STRANGERS, _NOBODY = 1_900_000_000, 65534
_MIB = 2**20
#: What is left for the work if the libraries alone take more than the limit, and room for reserved addresses.
_LEAST_MB, _RESERVED_MB = 64, 1024
_FILES, _THREADS = 64, 16

#: layer -> "" if it is in force, else why not
Layers = dict[str, str]


def isolate(report: Callable[[int], None]) -> Layers:
    """Go on in a child of one's own network, processes, mounts and names; this process only waits for it.

    `report` is told, in the waiting process, the child's number. Call it while there is one thread.
    """
    if sys.platform != "linux":
        return {"namespaces": "only Linux has them"}
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    try:
        _unshare()
    except OSError as e:
        return {"namespaces": str(e)}
    ready, go = os.pipe()
    child = os.fork()
    if child:
        report(child)
        os.close(go)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) % 256)
    os.close(go)
    os.read(ready, 1)
    os.close(ready)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    return {"namespaces": ""}


def _unshare() -> None:
    """Leave the namespaces; who may not is made master of a user namespace first."""
    try:
        kernel.unshare(_NAMESPACES)
    except OSError:
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare(_NAMESPACES | _NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def close(
    scratch: Path, libraries: Sequence[str], layers: Layers, *, memory_mb: int, cpu_s: int, file_mb: int
) -> Layers:
    """Lock this process up in `scratch` (`in` to read, `out` and `tmp` to write) for good; go there.

    Beside that it can read `libraries`. Returns every layer, and why it is not in force where it is not.
    """
    layers = dict(layers)
    if sys.platform != "linux":
        os.chdir(scratch)
        _limits(memory_mb, cpu_s, file_mb, None)
        return {**layers, "limits": "", **dict.fromkeys(("own root", "own user", "landlock", "seccomp"), "not Linux")}
    if len(os.listdir("/proc/self/task")) > 1:
        layers["one thread"] = "a library has started threads; Landlock does not bind them"
    used = _used()

    def own_root() -> None:
        if layers["namespaces"]:
            raise OSError("needs namespaces")
        files.own_root(scratch, libraries)

    if not _tried(layers, "own root", own_root):
        os.chdir(scratch)
    rules: list[int] = []
    readable = [place for place in libraries if Path(place).exists()]
    _tried(layers, "landlock", lambda: rules.append(files.landlocked([*readable, "in", "/dev/null"], ["out", "tmp"])))
    within = not layers["own root"]
    _tried(layers, "own user", lambda: _own_user(None if within else readable))
    _tried(layers, "no privileges", _no_privileges)
    if rules:
        _tried(layers, "landlock", lambda: files.landlock(rules[0]))
    _limits(memory_mb, cpu_s, file_mb, used)
    layers["limits"] = ""
    if not _tried(layers, "seccomp", calls.confine):
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return layers


def _tried(layers: Layers, name: str, layer: Callable[[], object]) -> bool:
    try:
        layer()
    except OSError as e:
        layers[name] = str(e)
    else:
        layers[name] = ""
    return not layers[name]


def _own_user(readable: Sequence[str] | None) -> None:
    """Become a user that nobody is. `readable`: what that user must be able to read, where that is not certain."""
    if os.geteuid() != 0:
        raise OSError("only root can become somebody else")
    for place in readable or ():
        if any(not (folder.stat().st_mode & 1) for folder in Path(place).resolve().parents):
            raise OSError(f"others cannot read {place}")
    for folder in ("out", "tmp"):
        os.chmod(folder, 0o777)  # noqa: S103 - the scratch folder lies in one that only we can enter
    with suppress(OSError):  # in a user namespace there are no others to give up
        os.setgroups([])
    stranger = _STRANGERS + int.from_bytes(os.urandom(4)) % 1_000_000
    try:
        os.setresgid(stranger, stranger, stranger)
    except OSError:  # a container knows no such numbers
        stranger = _NOBODY
        os.setresgid(stranger, stranger, stranger)
    os.setresuid(stranger, stranger, stranger)
    resource.setrlimit(resource.RLIMIT_NPROC, (_THREADS, _THREADS))


def _no_privileges() -> None:
    """Give up privileges, and the hope for new ones; be seen by no debugger; end with whoever waits."""
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)


def _used() -> dict[str, int]:
    """Return what this process has of memory, in bytes: VmSize, VmData, VmRSS."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[0].startswith("Vm")}


def _limits(memory_mb: int, cpu_s: int, file_mb: int, used: dict[str, int] | None) -> None:
    """Bound memory beyond what the libraries have reserved already, time, files and threads."""
    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_mb * _MIB,
        resource.RLIMIT_NOFILE: _FILES,
    }
    if used is not None:
        left = max(memory_mb * _MIB - used["VmRSS"], _LEAST_MB * _MIB)
        bounds[resource.RLIMIT_DATA] = used["VmData"] + left
        bounds[resource.RLIMIT_AS] = used["VmSize"] + left + _RESERVED_MB * _MIB
    for what, bound in bounds.items():
        resource.setrlimit(what, (bound, bound))
