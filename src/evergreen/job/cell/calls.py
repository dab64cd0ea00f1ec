"""Which system calls a locked-down process may make: a seccomp filter, built by hand, for x86_64 and aarch64."""

from __future__ import annotations

import ctypes
import errno
import os

from evergreen.job.cell import kernel

#: What Python, numpy and ONNX Runtime need once they are loaded. Whatever is not here is refused with EPERM:
#: sockets, exec, fork, ptrace, mount, io_uring, keys, BPF, and all that will be invented.
_ALLOWED = {
    "x86_64": {
        "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
        "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
        "rt_sigreturn": 15, "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "select": 23,
        "sched_yield": 24, "mremap": 25, "msync": 26, "mincore": 27, "madvise": 28, "dup": 32, "nanosleep": 35,
        "getpid": 39, "sendfile": 40, "exit": 60, "uname": 63, "fcntl": 72, "fsync": 74, "fdatasync": 75,
        "ftruncate": 77, "getdents": 78, "getcwd": 79, "chdir": 80, "rename": 82, "mkdir": 83, "rmdir": 84,
        "unlink": 87, "readlink": 89, "umask": 95, "gettimeofday": 96, "getrlimit": 97, "getrusage": 98,
        "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
        "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204, "getdents64": 217,
        "set_tid_address": 218, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230,
        "exit_group": 231, "openat": 257, "mkdirat": 258, "newfstatat": 262, "unlinkat": 263, "renameat": 264,
        "readlinkat": 267, "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273,
        "get_robust_list": 274, "getcpu": 309, "renameat2": 316, "getrandom": 318, "membarrier": 324,
        "copy_file_range": 326, "statx": 332, "rseq": 334, "faccessat2": 439,
    },
    "aarch64": {
        "getcwd": 17, "dup": 23, "fcntl": 25, "mkdirat": 34, "unlinkat": 35, "renameat": 38, "ftruncate": 46,
        "faccessat": 48, "chdir": 49, "openat": 56, "close": 57, "getdents64": 61, "lseek": 62, "read": 63,
        "write": 64, "readv": 65, "writev": 66, "pread64": 67, "pwrite64": 68, "sendfile": 71, "pselect6": 72,
        "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "fsync": 82, "fdatasync": 83, "exit": 93,
        "exit_group": 94, "set_tid_address": 96, "futex": 98, "set_robust_list": 99, "get_robust_list": 100,
        "nanosleep": 101, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
        "sched_getaffinity": 123, "sched_yield": 124, "sigaltstack": 132, "rt_sigaction": 134,
        "rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153, "uname": 160, "getrlimit": 163,
        "getrusage": 165, "umask": 166, "getcpu": 168, "gettimeofday": 169, "getpid": 172, "getppid": 173,
        "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "brk": 214,
        "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "msync": 227, "mincore": 232, "madvise": 233,
        "renameat2": 276, "getrandom": 278, "membarrier": 283, "copy_file_range": 285, "statx": 291, "rseq": 293,
        "faccessat2": 439,
    },
}  # fmt: skip
#: Calls that are looked at more closely.
_SPECIAL = {
    "x86_64": {"ioctl": 16, "clone": 56, "prctl": 157, "tgkill": 234, "prlimit64": 302, "clone3": 435},
    "aarch64": {"ioctl": 29, "clone": 220, "prctl": 167, "tgkill": 131, "prlimit64": 261, "clone3": 435},
}
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: From here on numbers belong to the x32 interface, which has other meanings for them.
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_NR, _ARCH, _ARGS = 0, 4, 16
_CLONE_THREAD, _PR_SET_NAME = 0x10000, 15

_Line = tuple[int, int, int, int]  # code, lines to skip if true, if false, operand


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_uint16), ("filter", ctypes.POINTER(_Filter)))


def _refuse(number: int) -> _Line:
    return (_RETURN, 0, 0, 0x00050000 | number)


def _argument(i: int, *, high: bool = False) -> _Line:
    return (_LOAD, 0, 0, _ARGS + 8 * i + 4 * high)


def program(machine: str, pid: int) -> list[_Line]:
    """Write the filter for a process: an allow-list, and a closer look at a few."""
    special, allow, eperm = _SPECIAL[machine], (_RETURN, 0, 0, _ALLOW), _refuse(errno.EPERM)
    looks: dict[str, list[_Line]] = {
        "ioctl": [_refuse(errno.ENOTTY)],  # Python asks of every file whether it is a terminal
        "clone3": [_refuse(errno.ENOSYS)],  # its flags are out of sight; the C library falls back on clone
        "clone": [_argument(0), (_ANY_BIT, 0, 1, _CLONE_THREAD), allow, eperm],  # a thread, never a process
        "prctl": [_argument(0), (_EQUAL, 0, 1, _PR_SET_NAME), allow, eperm],
        "tgkill": [_argument(0), (_EQUAL, 0, 1, pid), allow, eperm],  # abort() signals the process itself
        "prlimit64": [  # limits may be read, never set
            _argument(2),
            (_EQUAL, 0, 3, 0),
            _argument(2, high=True),
            (_EQUAL, 0, 1, 0),
            allow,
            eperm,
        ],
    }
    lines: list[_Line] = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _KILL)]
    lines += [(_LOAD, 0, 0, _NR), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for name, look in looks.items():
        lines += [(_EQUAL, 0, len(look), special[name]), *look]
    for number in _ALLOWED[machine].values():
        lines += [(_EQUAL, 0, 1, number), allow]
    return [*lines, eperm]


def confine() -> None:
    """Allow this process, for good, no system call but those. Raises `OSError` where that cannot be had."""
    if kernel.machine() not in _ALLOWED:
        raise OSError(f"no list of system calls for {kernel.machine()}")
    lines = [_Filter(*line) for line in program(kernel.machine(), os.getpid())]
    kernel.seccomp(_Program(len(lines), (_Filter * len(lines))(*lines)))
