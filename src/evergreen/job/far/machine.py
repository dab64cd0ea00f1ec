"""What this machine has: for offers, and for people."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from secrets import token_hex

from evergreen.job.far.protocol import Machine

_LIBRARIES = ("evergreen-ml", "numpy", "scikit-learn", "onnx", "onnxruntime", "torch", "transformers", "coremltools")


def machine() -> Machine:
    """Look at this machine."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(host=platform.node(), gpu=_gpu(), memory_gb=_memory_gb(), cpus=cpus, versions=versions)


def name(host: str) -> str:
    """Make a name for a worker that no other has, fit for a file."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", host).strip("-").lower()[:40]
    return f"{plain or 'worker'}-{token_hex(3)}"


def _gpu() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
        return found.splitlines()[0].strip() if found else ""
    return ""


def _memory_gb() -> float:
    with suppress(OSError, ValueError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return 0.0
