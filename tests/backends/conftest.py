"""Tests of backends find the servers they talk to beside themselves."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `fake_server`, `fake_dropbox` and `fake_drive`
