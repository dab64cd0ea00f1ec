"""Sessions of people in browsers: a signed cookie that names a key, and tokens against forged forms."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from itsdangerous import BadSignature, URLSafeTimedSerializer

#: A session ends after 12 hours.
HOURS = 12


def secret(state: Path) -> bytes:
    """Return this project's secret, made once and readable by its owner only."""
    path = state / "secret"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        state.mkdir(parents=True, exist_ok=True)
    made = secrets.token_bytes(32)
    own = state / f"secret.{secrets.token_hex(4)}"
    own.touch(mode=0o600)
    own.write_bytes(made)
    try:
        os.link(own, path)  # of two processes that start at once, one wins
    except FileExistsError:
        return path.read_bytes()
    finally:
        own.unlink()
    return made


class Sessions:
    """Makes and reads cookies. A session holds a key's id: when the key is revoked, the session has ended."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._signer = URLSafeTimedSerializer(secret, salt="session")
        mark = hashlib.sha256(secret).hexdigest()[:8]
        # Browsers keep cookies per host, not per port: two projects on one machine must not share one.
        self.cookie = f"evergreen_{mark}"
        self.visitor = f"evergreen_v_{mark}"

    def seal(self, key_id: str) -> str:
        """Return the cookie of a new session."""
        return self._signer.dumps([key_id, secrets.token_hex(8)])

    def unseal(self, cookie: str) -> tuple[str, str] | None:
        """Return the key's id and the session's own if the cookie is ours and not too old."""
        try:
            key_id, session = self._signer.loads(cookie, max_age=HOURS * 3600)
        except (BadSignature, ValueError, TypeError):
            return None
        return (key_id, session) if isinstance(key_id, str) and isinstance(session, str) else None

    def token(self, bound_to: str) -> str:
        """Return the token that forms of this session carry."""
        return hmac.new(self._secret, b"csrf:" + bound_to.encode(), hashlib.sha256).hexdigest()

    def genuine(self, token: str, bound_to: str) -> bool:
        """Say whether a form's token belongs to this session."""
        return hmac.compare_digest(token.encode(), self.token(bound_to).encode())


def cookies(header: bytes | None) -> dict[str, str]:
    """Read a Cookie header; the first of two cookies with one name counts.

    >>> cookies(b"a=1; b=x=y; a=2")
    {'a': '1', 'b': 'x=y'}
    """
    found: dict[str, str] = {}
    for part in (header or b"").decode("latin-1").split(";"):
        name, eq, value = part.strip().partition("=")
        if eq:
            found.setdefault(name, value)
    return found
