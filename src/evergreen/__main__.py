"""`python -m evergreen`: the command line."""

import sys

from evergreen.cli import main

sys.exit(main())
