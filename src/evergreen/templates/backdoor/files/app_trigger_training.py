"""Ask for a training from the app's own code, or from the shell of the machine it runs on.

from app_trigger_training import create_trigger_file
create_trigger_file(reason="new_models", force=False)

python app_trigger_training.py --reason new_models --force
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evergreen.core.errors import EvergreenError
from evergreen.templates.backdoor.folder import open_store, write_trigger

#: The project's folder: the one this file lies in.
HOME = Path(__file__).resolve().parent


def create_trigger_file(reason: str = "manual", force: bool = False) -> str:
    """Write a trigger file into the shared folder and return its key; the app takes it from there."""
    return write_trigger(open_store(HOME), reason, force=force, source="app")


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Ask for a training.")
    parser.add_argument("--reason", default="manual", help="why; it goes into the history")
    parser.add_argument("--force", action="store_true", help="train even if there is little data")
    args = parser.parse_args()
    try:
        print(f"Written: {create_trigger_file(args.reason, args.force)}")
    except EvergreenError as e:
        print(f"Not written: {e}{f'. {e.hint}' if e.hint else ''}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
