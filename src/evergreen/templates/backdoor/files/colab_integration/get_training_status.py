"""Say how far trainings are, from anywhere: needs the folder (EVERGREEN_STORE) and its credentials, not the app.

python get_training_status.py [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from evergreen.core.errors import EvergreenError
    from evergreen.templates.backdoor.folder import open_store, training_status
except ModuleNotFoundError as e:
    sys.exit(f"{e.name} is not installed: pip install 'evergreen-ml[dropbox]' (or drive, or s3)")

#: The project's folder, if this file still lies in one; used where EVERGREEN_STORE is not set.
HOME = Path(__file__).resolve().parent.parent


def told(status: Mapping[str, Any]) -> str:
    """Say it in a few lines."""
    state, model = status["state"], status["model"]
    if state is None:
        lines = ["The app has not written anything into this folder yet."]
    else:
        job = state["latest_job"]
        lines = [
            f"Model:         {model['version'] if model else 'none yet'}",
            f"Last training: {state['last_training'] or 'none yet'}",
            f"New:           {state['new_interactions']} interactions, {state['pending_models']} models from devices",
            f"Latest job:    {job['status'] + ': ' + job['message'] if job else 'none yet'}",
            f"Due:           {status['due'] or 'no'}",
        ]
    for trigger in status["triggers"]:
        lines.append(f"{trigger['file']}: {trigger.get('status', 'pending')} ({trigger.get('reason', 'no reason')})")
        if trigger.get("message"):
            lines.append(f"  {trigger['message']}")
    return "\n".join(lines)


def main() -> int:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description="Say how far trainings are.")
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args()
    try:
        status = training_status(open_store(HOME))
    except EvergreenError as e:
        print(f"Not known: {e}{f'. {e.hint}' if e.hint else ''}", file=sys.stderr)
        return 1
    print(json.dumps(status, indent=2) if args.json else told(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
