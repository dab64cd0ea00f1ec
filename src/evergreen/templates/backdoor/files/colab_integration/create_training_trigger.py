"""Ask for a training from anywhere: needs the folder (EVERGREEN_STORE) and its credentials, not the app.

EVERGREEN_STORE=dropbox:///backdoor python create_training_trigger.py --reason manual_trigger --force
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

try:
    from evergreen.core.errors import EvergreenError
    from evergreen.templates.backdoor.folder import open_store, write_trigger
except ModuleNotFoundError as e:
    sys.exit(f"{e.name} is not installed: pip install 'evergreen-ml[dropbox]' (or drive, or s3)")

#: The project's folder, if this file still lies in one; used where EVERGREEN_STORE is not set.
HOME = Path(__file__).resolve().parent.parent


def main() -> int:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description="Ask for a training by a file in the shared folder.")
    parser.add_argument("--reason", default="manual_trigger", help="why; it goes into the history")
    parser.add_argument("--force", action="store_true", help="train even if there is little data")
    parser.add_argument("--by", default=None, help="who asks; else your user name")
    args = parser.parse_args()
    try:
        key = write_trigger(open_store(HOME), args.reason, force=args.force, source="script", triggered_by=args.by)
    except EvergreenError as e:
        print(f"Not written: {e}{f'. {e.hint}' if e.hint else ''}", file=sys.stderr)
        return 1
    print(f"Written: {key}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
