"""What the tests of the pages share stands in `pages`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
