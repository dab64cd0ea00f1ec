"""What the tests of the far side share stands in `far_hands`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
