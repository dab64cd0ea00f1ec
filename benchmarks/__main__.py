"""Every benchmark, one after the other: `python -m benchmarks [NAME …]`. Each writes `benchmarks/results/NAME.md`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = (
    "serving",
    "ingest",
    "trigger_to_live",
    "swaps",
    "together",
    "training_beside",
    "footprint",
    "replay",
    "stores",
    "intents",
    "gate",
    "drift",
    "protocol",
    "takeover",
    "experiments",
)


def main() -> int:
    """Run what was asked for, or all; go on after a failure and say so at the end."""
    failed = []
    for name in sys.argv[1:] or NAMES:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, HERE / f"{name}.py"]).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
