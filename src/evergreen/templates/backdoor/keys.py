"""The key by which devices get their pseudonyms: from the environment, or made once and kept by this project."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from evergreen.http.sessions import secret

VARIABLE = "EVERGREEN_PSEUDONYM_KEY"


def pseudonym_key(state: Path) -> bytes:
    """Return the key. With EVERGREEN_PSEUDONYM_KEY devices keep their pseudonyms when the host is replaced."""
    said = os.environ.get(VARIABLE)
    return said.encode() if said else hashlib.sha256(b"pseudonyms:" + secret(state)).digest()
