"""Formats that are hostile themselves: what could a file do that had taken over the process? `evil:NAME` tries NAME."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evergreen.core.errors import InvalidInput
from evergreen.core.recipe import Interface, PluginOptions

_libc = ctypes.CDLL(None, use_errno=True)


def _system(number: int, *args: Any) -> str:
    ctypes.set_errno(0)
    done = _libc.syscall(number, *args)
    if done >= 0:
        return f"system call {number} gave {done}"
    raise OSError(ctypes.get_errno(), f"system call {number}")


def _read(path: str) -> str:
    return f"read {path}: {Path(path).read_bytes()[:50]!r}"


def _write(path: str) -> str:
    Path(path).write_text("evil")
    return f"wrote {path}"


def _environment() -> str:
    held = {**os.environ}
    found = Path("/proc/self/environ").read_bytes() if Path("/proc/self/environ").exists() else b""
    if b"SECRET" in found or any("SECRET" in name for name in held):
        return "the environment tells secrets"
    raise OSError("no secrets in the environment")


def _descriptors() -> str:
    held = []
    for fd in range(3, 64):
        try:
            held.append((fd, os.fstat(fd).st_mode))
        except OSError:
            continue
    if len(held) > 1:  # the pipe for the answer
        return f"inherited {held}"
    raise OSError("nothing but the pipe")


def _folders() -> str:
    for name in ("boot", "proc", "sys", "mnt"):
        if os.listdir(f"/{name}"):
            return f"/{name} can be listed"
    raise OSError("none of them")


#: name -> what is tried; that it returns at all means that it worked.
ATTEMPTS: dict[str, Callable[[], str]] = {
    "tcp_socket": lambda: f"{socket.socket()}",
    "socket6": lambda: f"{socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)}",
    "unix_socket": lambda: f"{socket.socket(socket.AF_UNIX)}",
    "netlink": lambda: f"{socket.socket(16, 3, 0)}",
    "socketpair": lambda: f"{socket.socketpair()}",
    "fork": lambda: f"{os.fork()}",
    "clone": lambda: _system(56, signal.SIGCHLD, 0, 0, 0, 0),
    "vfork": lambda: _system(58),
    "exec": lambda: f"{os.execv(sys.executable, [sys.executable, '-c', 'pass'])}",
    "run": lambda: f"{subprocess.run(['/bin/true'])}",
    "system": lambda: f"{os.posix_spawn('/bin/true', ['true'], {})}",
    "write_tmp": lambda: _write("/tmp/evergreen-was-harmed"),
    "write_etc": lambda: _write("/etc/evergreen-was-harmed"),
    "write_above": lambda: _write("../evergreen-was-harmed"),
    "write_scratch": lambda: _write("evergreen-was-harmed"),
    "write_library": lambda: _write(json.__file__),
    "write_input": lambda: _write(f"in/{os.listdir('in')[0]}"),
    "write_out_exec": lambda: (_write("out/x"), os.chmod("out/x", 0o4755), "made a program")[2],
    "device": lambda: (os.mknod("out/null", 0o20666, os.makedev(1, 3)), "made a device")[1],
    "link": lambda: (os.link("in/model.onnx", "out/l"), "made a link")[1],
    "symlink": lambda: (os.symlink("/etc/passwd", "out/s"), "made a symlink")[1],
    "pipe": lambda: (os.mkfifo("out/p"), "made a pipe")[1],
    "passwd": lambda: _read("/etc/passwd"),
    "shadow": lambda: _read("/etc/shadow"),
    "init_environ": lambda: _read("/proc/1/environ"),
    "parent_environ": lambda: _read(f"/proc/{os.getppid()}/environ"),
    "parent_memory": lambda: _read(f"/proc/{os.getppid()}/mem"),
    "own_environ": _environment,
    "descriptors": _descriptors,
    "folders": _folders,
    "kill_all": lambda: f"{os.kill(-1, 0)}",
    "kill_group": lambda: f"{os.killpg(0, 0)}",
    "kill_parent": lambda: f"{os.kill(os.getppid() or 1, 0)}",
    "ptrace": lambda: _system(101, 16, 1, 0, 0),
    "process_vm_readv": lambda: _system(310, 1, 0, 0, 0, 0, 0),
    "mount": lambda: _system(165, b"none", b"/cell/out", b"tmpfs", 0, 0),
    "unshare": lambda: _system(272, 0x10000000),
    "setns": lambda: _system(308, 3, 0),
    "chroot": lambda: (os.chroot("/cell/out"), "changed the root")[1],
    "bpf": lambda: _system(321, 0, 0, 0),
    "io_uring": lambda: _system(425, 1, ctypes.create_string_buffer(200)),
    "userfaultfd": lambda: _system(323, 0),
    "perf": lambda: _system(298, 0, 0, 0, 0, 0),
    "keyctl": lambda: _system(250, 0, 0, 0),
    "memfd": lambda: f"{os.memfd_create('x')}",
    "open_by_handle": lambda: _system(304, 0, 0, 0),
    "raise_limits": lambda: _raise_limits(),
    "become_root": lambda: (os.setuid(0), "became root")[1] if os.getuid() else "is root",
    "dumpable": lambda: _system(157, 4, 1, 0, 0, 0),
    "reboot": lambda: _system(169, 0xFEE1DEAD, 672274793, 0, 0),
    "secret": lambda: _read(str(_secret())),
    "secret_of_the_project": lambda: _read(str(_secret("BESIDE"))),
    "the_project": lambda: f"{os.listdir(_secret('BESIDE').parent)}",
}


def _raise_limits() -> str:
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError as e:
        raise OSError(str(e)) from e
    return "raised the limits"


def _secret(which: str = "SECRET") -> Path:
    """The secret file of the test: it told its place by the folder that it put this module's settings into."""
    import evil_places  # type: ignore[import-not-found]

    return Path(getattr(evil_places, which))


def _endlessly() -> None:
    while True:
        pass


def _eat() -> None:
    held = []
    while True:
        held.append(bytearray(10_000_000))


def _eat_quietly() -> None:
    """Swallow every error, and go on: smaller pieces, mapped ones."""
    import mmap

    held: list[Any] = []
    while True:
        for size in (1 << 26, 1 << 20, 1 << 14):
            try:
                piece = mmap.mmap(-1, size)
                piece[::4096] = b"x" * len(piece[::4096])
                held.append(piece)
            except (MemoryError, OSError, ValueError):
                continue


def _fill() -> None:
    n = 0
    while True:
        with Path(f"out/{n}").open("wb") as out:
            for _ in range(50):
                out.write(b"x" * 1_000_000)
        n += 1


def _many_files() -> None:
    for i in range(1_000_000):
        Path(f"tmp/{i}").touch()


def _talk() -> None:
    for fd in range(3, 64):
        try:
            while True:
                os.write(fd, b'{"a": "' + b"x" * 60_000 + b'"}\n')
        except OSError:
            continue


def _forge(**result: Any) -> None:
    said = {"result": {"interface": {"kind": "features", "input": "input", "labels": ["a", "b"], "width": 1}, **result}}
    for fd in range(3, 64):
        try:
            os.write(fd, json.dumps(said).encode() + b"\n")
        except OSError:
            continue
    time.sleep(60)


def _forge_with_link() -> None:
    os.mkdir("out/model.onnx")
    _forge(scores={"accuracy": 1.0}, ms=0.1)


def _threads() -> None:
    import threading

    while True:
        threading.Thread(target=time.sleep, args=(60,)).start()


def _raise(e: BaseException) -> None:
    raise e


#: name -> what is done; none of it comes to an end by itself that is good.
DEEDS: dict[str, Callable[[], Any]] = {
    "spin": _endlessly,
    "sleep": lambda: time.sleep(3600),
    "eat": _eat,
    "eat_quietly": _eat_quietly,
    "fill": _fill,
    "many_files": _many_files,
    "talk": _talk,
    "threads": _threads,
    "crash": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "x32_exec": lambda: _system(0x40000000 + 520, 0, 0, 0),
    "leave": lambda: os._exit(0),
    "leave_badly": lambda: os._exit(7),
    "system_exit": lambda: sys.exit(0),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "forge_nothing": lambda: _forge(scores={}, ms=0.1),
    "forge_folder": _forge_with_link,
    "forge_nan": lambda: _forge(scores={"accuracy": float("nan")}, ms=0.1),
    "forge_shape": lambda: _forge(scores="many", ms=None),
    "ignore_signals": lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), _endlessly()),
}


def __getattr__(name: str) -> Any:
    if name not in ATTEMPTS and name not in DEEDS:
        raise AttributeError(name)

    class Evil:
        """Tries something."""

        Options = PluginOptions
        suffixes = (".onnx",)

        def __init__(self, options: PluginOptions) -> None:
            if name in ATTEMPTS:
                import evil_places  # noqa: F401 - its place is known before the lock is closed

        def read(self, file: Path, out: Path) -> Interface:
            if name in DEEDS:
                DEEDS[name]()
            try:
                said = ATTEMPTS[name]()
            except OSError as e:
                raise InvalidInput(f"prevented: {type(e).__name__}: {e}") from e
            raise InvalidInput(f"WORKED: {said}")

    return Evil
