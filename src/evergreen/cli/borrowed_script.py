"""The worker as one Python file, for `colab run` and its like: it carries what it needs to open the folder."""

from __future__ import annotations

from collections.abc import Mapping

_SCRIPT = """\
import importlib.util, os, subprocess, sys

os.environ.update({given!r})
if importlib.util.find_spec("evergreen") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", {package!r}], check=True)
from evergreen.job.far import attend, session

session.machine()
done = attend({url!r}, once={once!r}, hours={hours!r}, wait_minutes={wait!r})
for training in done:
    print(training)
"""


def script(url: str, package: str, given: Mapping[str, str], *, hours: float, once: bool) -> str:
    """Return the file's text. It holds the credentials in `given`: write it where nobody else can read it."""
    return _SCRIPT.format(
        given=dict(given), package=package, url=url, once=once, hours=hours, wait=10.0 if once else None
    )
