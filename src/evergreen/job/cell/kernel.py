"""System calls of Linux that Python has no name for."""

from __future__ import annotations

import ctypes
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

#: Numbers of system calls that the C library may not wrap: the same on every machine since Linux 5.1, but the first.
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_LANDLOCK = {"create": 444, "add": 445, "restrict": 446}

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 1, 4, 38, 24

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2

_CAPABILITIES = 64


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def machine() -> str:
    """Return the kind of processor, as the tables of this package name it."""
    return platform.machine()


def prctl(option: int, value: int = 0) -> None:
    """Set something of this process. Raises `OSError`."""
    _checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl({option})")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones. Raises `OSError`."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount. Raises `OSError`."""
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _checked(done, f"mount {target}")


def change_root(root: str) -> None:
    """Make a mounted folder the root of everything and let go of the old one. Raises `OSError`."""
    os.chdir(root)
    _checked(_libc.syscall(_PIVOT_ROOT[machine()], b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every privilege, for good. Raises `OSError`."""
    for capability in range(_CAPABILITIES):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # there are no more, or we had none to give up
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def landlock(call: str, *args: object) -> int:
    """Call Landlock: create, add or restrict. Raises `OSError`."""
    return _checked(_libc.syscall(_LANDLOCK[call], *args), f"landlock {call}")


def seccomp(program: ctypes.Structure) -> None:
    """Put a filter before every thread of this process. Raises `OSError`."""
    done = _libc.syscall(_SECCOMP[machine()], 1, 1, ctypes.byref(program))  # SET_MODE_FILTER, TSYNC
    _checked(done, "seccomp")
    if done > 0:
        raise OSError(f"seccomp: thread {done} could not be bound")
