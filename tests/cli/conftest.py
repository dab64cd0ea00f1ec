"""Fixtures of the command line's tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cli_kit import home, run

__all__ = ["home", "run"]
