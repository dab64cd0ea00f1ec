"""Which files a locked-down process can reach: a root of its own with little in it, and Landlock."""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from evergreen.job.cell import kernel

#: Where shared libraries and data of the C library lie.
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo")
#: The scratch folder, in the new root.
CELL = "/cell"

# Rights of Landlock, by the version that brought them.
_EXECUTE, _WRITE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_READING = _READ_FILE | _READ_DIR
_WRITING = _READING | _WRITE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
_PATH_BENEATH = 1


def libraries() -> list[str]:
    """List the folders from which Python and its packages are loaded, each that lies in no other one."""
    packages = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    places = [*sys.path, *packages, *_SYSTEM, str(Path(__file__).parents[2])]
    found = sorted({p for p in places if p.startswith("/") and Path(p).exists() and Path(p).parent != Path(p)})
    kept: list[str] = []
    for place in found:
        if not any(place.startswith(f"{other}/") for other in kept if not Path(other).is_symlink()):
            kept.append(place)
    return kept


def own_root(scratch: Path, readable: Sequence[str]) -> None:
    """Make a root that holds the libraries, read-only, and `scratch` as `/cell`; go there. Raises `OSError`.

    Needs a mount namespace of one's own.
    """
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    root = str(scratch / "root")
    Path(root).mkdir()
    inside = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", root, "tmpfs", inside | kernel.MS_NOEXEC, "size=1m,mode=755")
    for place in [*readable, "/dev/null"]:
        _show(place, root)
    cell = root + CELL
    Path(cell).mkdir()
    kernel.mount(str(scratch), cell, "", kernel.MS_BIND)
    _remount(cell, inside | kernel.MS_NOEXEC)
    _remount(root, inside | kernel.MS_NOEXEC | kernel.MS_RDONLY)
    kernel.change_root(root)
    os.chdir(CELL)


def _show(place: str, root: str) -> None:
    """Show a file or folder in the new root, at the same place, read-only."""
    target = Path(root + place)
    target.parent.mkdir(parents=True, exist_ok=True)
    if Path(place).is_symlink():  # /lib -> usr/lib
        target.symlink_to(Path(place).readlink())
        place = str(Path(place).resolve())
        target = Path(root + place)
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
    if Path(place).is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    kernel.mount(place, str(target), "", kernel.MS_BIND)
    # What is mounted below is not shown. A device cannot be opened where devices are forbidden.
    _remount(str(target), kernel.MS_NOSUID | kernel.MS_RDONLY | (0 if place == "/dev/null" else kernel.MS_NODEV))


def _remount(target: str, flags: int) -> None:
    """Add flags to a mount; those it had may be locked and are kept (statvfs and mount number these alike)."""
    had = os.statvfs(target).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_RDONLY)
    had |= os.statvfs(target).f_flag & (os.ST_NODIRATIME | os.ST_RELATIME)
    relatime = (1 << 21) if had & os.ST_RELATIME else 0
    kept = had & ~os.ST_RELATIME
    kernel.mount("none", target, "", kernel.MS_REMOUNT | kernel.MS_BIND | kept | relatime | flags)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("fd", ctypes.c_int32))


def landlocked(readable: Sequence[str], writable: Sequence[str]) -> int:
    """Write rules: read below these, write below those, nothing else; no TCP, no signals out. Return a descriptor.

    Raises `OSError` where the kernel has no Landlock.
    """
    version = kernel.landlock("create", None, 0, 1)
    every = (1 << 13) - 1
    every |= (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0) | (_IOCTL if version >= 5 else 0)
    rules = _Ruleset(every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = kernel.landlock("create", ctypes.byref(rules), size, 0)
    for places, rights in ((readable, _READING), (writable, _WRITING)):
        for place in places:
            fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
            try:
                allowed = rights & every if Path(place).is_dir() else rights & every & (_READ_FILE | _WRITE | _TRUNCATE)
                kernel.landlock("add", ruleset, _PATH_BENEATH, ctypes.byref(_Beneath(allowed, fd)), 0)
            finally:
                os.close(fd)
    return ruleset


def landlock(ruleset: int) -> None:
    """Keep to the rules from now on, for good; needs "no new privileges". Raises `OSError`."""
    kernel.landlock("restrict", ruleset, 0)
    os.close(ruleset)
