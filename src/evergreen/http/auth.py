"""Who calls: keys, their roles and how long they hold, kept in the ledger as hashes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Literal, NamedTuple

from evergreen.core.errors import InvalidInput, NotFound, Refused, Unauthorized
from evergreen.core.ports import Ledger

log = logging.getLogger("evergreen.http")

_PREFIX = "egk_"
#: Scopes in the ledger: keys, when each was last used, sessions that were ended before their time.
_SCOPE, _USED, _ENDED = "key", "key.used", "session.ended"
#: How long a revoked key may still work, in seconds.
_FRESH = 1.0
#: A key's last use is known to this many seconds.
_USED_S = 60.0
#: Longest that a key may be made to hold.
_LONGEST = timedelta(days=3650)

Raw = Mapping[bytes, bytes]  # headers of a request: lower-case name -> value


class Role(IntEnum):
    """What a caller may do; each role may do what those below it may."""

    NONE = 0
    APP = 1  #: predict, collect, read
    REVIEWER = 2  #: judge samples
    OPERATOR = 3  #: train, promote, roll back
    ADMIN = 4  #: make keys

    @classmethod
    def named(cls, name: str) -> Role:
        """Return the role of that name, or raise `InvalidInput` that lists them."""
        try:
            return cls[name.upper()]
        except KeyError:
            raise InvalidInput(
                f'there is no role "{name}"; there are: {", ".join(r.name.lower() for r in cls)}', field="role"
            ) from None


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key: never the key itself."""

    id: str
    name: str
    role: Role
    sha256: str
    created: str
    last4: str
    expires: str | None = None  #: moment after which it opens nothing
    until: float = float("inf")  #: the same, in seconds since 1970

    def expired(self, now: float) -> bool:
        """Say whether it holds no more."""
        return now >= self.until


class Caller(NamedTuple):
    """Who calls: the name that goes into the history, the role, and how we know."""

    name: str
    role: Role
    via: Literal["key", "session", "open", "anonymous"]
    id: str | None = None  #: of the key


def create(ledger: Ledger, name: str, role: str, expires: timedelta | None = None) -> tuple[str, str]:
    """Make a key and return (id, key); the key can never be shown again."""
    rank = Role.named(role)
    if rank is Role.NONE:
        raise InvalidInput("a key without a role opens nothing", field="role")
    if not 0 < len(name.strip()) <= 80:
        raise InvalidInput("a key's name has 1 to 80 characters", field="name")
    if expires is not None and not timedelta(0) < expires <= _LONGEST:
        raise InvalidInput("a key holds for more than no time and at most ten years", field="expires")
    id, key = secrets.token_hex(6), _PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    kept = {
        "name": name.strip(),
        "role": rank.name.lower(),
        "sha256": _digest(key),
        "created": now.isoformat(timespec="seconds"),
        "last4": key[-4:],
    }
    if expires is not None:
        kept["expires"] = (now + expires).isoformat(timespec="milliseconds")
    ledger.remember(_SCOPE, id, json.dumps(kept))
    return id, key


def listing(ledger: Ledger) -> list[Key]:
    """Return all keys, oldest first; those that have expired, too."""
    return sorted((_key(id, kept) for id, kept in ledger.recall_all(_SCOPE).items()), key=lambda k: (k.created, k.id))


def used(ledger: Ledger) -> Mapping[str, str]:
    """Return when each key was last used: id -> moment, to the minute. A key that never was is not there."""
    return ledger.recall_all(_USED)


def revoke(ledger: Ledger, id: str) -> Key:
    """Forget a key; running servers refuse it within a second, and its sessions with it."""
    key = _known(ledger, id)
    with ledger.together():
        ledger.remember(_SCOPE, id, None)
        ledger.remember(_USED, id, None)
    return key


def rotate(
    ledger: Ledger, id: str, *, grace: timedelta = timedelta(0), expires: timedelta | None = None
) -> tuple[str, str]:
    """Make a new key of the same name and role, and return (id, key). The old one holds for `grace`, then no more.

    The new one holds for `expires`, or for as long as the old one was made for.
    """
    old = _known(ledger, id)
    if expires is None and old.expires:
        expires = datetime.fromisoformat(old.expires) - datetime.fromisoformat(old.created)
    with ledger.together():
        made = create(ledger, old.name, old.role.name, expires)
        end = datetime.now(UTC) + grace
        if not grace:
            revoke(ledger, id)
        elif end.timestamp() < old.until:
            kept = json.loads(ledger.recall(_SCOPE, id) or "{}")
            ledger.remember(_SCOPE, id, json.dumps({**kept, "expires": end.isoformat(timespec="milliseconds")}))
    return made


def in_force(ledger: Ledger) -> bool:
    """Say whether any key opens anything now."""
    now = time.time()
    return any(not key.expired(now) for key in listing(ledger))


def _known(ledger: Ledger, id: str) -> Key:
    kept = ledger.recall(_SCOPE, id)
    if kept is None:
        raise NotFound(f"there is no key {id}", field="id", hint="`evergreen keys list` shows their ids.")
    return _key(id, kept)


def demand(caller: Caller, role: Role) -> str:
    """Return the caller's name, or raise `Unauthorized` (nobody known) or `Refused` (somebody lesser)."""
    if caller.role >= role:
        return caller.name
    if caller.via in ("key", "session"):
        raise Refused(f"this needs the role {role.name.lower()}; {caller.name} is {caller.role.name.lower()}")
    raise Unauthorized(f"this needs a key with the role {role.name.lower()}")


class Keys:
    """The keys as this process knows them: read from the ledger at most once a second."""

    def __init__(
        self, ledger: Ledger, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._wall = wall
        self._read_at = float("-inf")
        self._by_digest: dict[str, Key] = {}
        self._known: dict[bytes, Key] = {}  # header value -> key, so that hashing is not done for every request
        self._by_id: dict[str, Key] = {}
        self._ended: frozenset[str] = frozenset()
        self._used: dict[str, float] = {}  # id -> when, in this process
        self._told: dict[str, float] = {}  # id -> when, as the ledger was told
        self._reading: asyncio.Lock | None = None

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def stale(self) -> bool:
        """Whether it is time to read them again."""
        return self._clock() - self._read_at > _FRESH

    def read(self) -> None:
        """Read all keys, and the sessions that were ended, from the ledger (blocking)."""
        kept = listing(self._ledger)
        self._ended = frozenset(self._ledger.recall_all(_ENDED))
        self._by_id = {k.id: k for k in kept}
        self._by_digest = {k.sha256: k for k in kept}
        self._known = {}
        self._read_at = self._clock()

    async def fresh(self) -> None:
        """Read the keys again, in a thread, if that was more than a second ago."""
        if not self.stale:
            return
        if self._reading is None:
            self._reading = asyncio.Lock()
        async with self._reading:
            if self.stale:
                try:
                    await asyncio.to_thread(self.read)
                except Exception:
                    # While the ledger is away nobody can revoke a key either: go on with what is known.
                    log.warning("keys could not be read again", exc_info=True)
                    self._read_at = self._clock()

    def by_session(self, id: str, session: str) -> Key | None:
        """Return the key of a session that holds: neither was ended, nor is its key revoked or expired."""
        key = self._by_id.get(id)
        now = self._wall()
        if key is None or key.expired(now) or session in self._ended:
            return None
        self._used[id] = now
        return key

    def by_secret(self, secret: bytes) -> Key:
        """Return the key that was sent, or raise `Unauthorized`."""
        key = self._known.get(secret)
        if key is None:
            key = self._known[secret] = self._found(secret)
        now = self._wall()
        if now >= key.until:
            raise Unauthorized(
                f"this key has expired, on {key.expires}", hint="Make another: evergreen keys rotate ID."
            )
        self._used[key.id] = now
        return key

    def whose(self, secret: bytes) -> Key | None:
        """Return the key that was sent, also if it has expired."""
        return self._by_digest.get(hashlib.sha256(secret).hexdigest())

    def _found(self, secret: bytes) -> Key:
        digest = hashlib.sha256(secret).hexdigest()
        key = self._by_digest.get(digest)
        if key is None or not hmac.compare_digest(key.sha256, digest):
            raise Unauthorized("this key is not known here")
        return key

    def end(self, session: str) -> None:
        """End a session before its time (blocking); other processes heed it within a second."""
        self._ended |= {session}
        self._ledger.remember(_ENDED, session, datetime.now(UTC).isoformat(timespec="seconds"))

    def tell(self, *, sessions_s: float) -> None:
        """Write down when keys were last used; forget ended sessions older than `sessions_s` (blocking)."""
        for id, at in list(self._used.items()):
            if at - self._told.get(id, 0.0) >= _USED_S and id in self._by_id:
                self._ledger.remember(_USED, id, datetime.fromtimestamp(at, UTC).isoformat(timespec="minutes"))
                self._told[id] = at
        for session, ended in self._ledger.recall_all(_ENDED).items():
            if self._wall() - datetime.fromisoformat(ended).timestamp() > sessions_s:
                self._ledger.remember(_ENDED, session, None)


def presented(headers: Raw) -> bytes | None:
    """Return the key a request carries, if it does."""
    bearer = headers.get(b"authorization")
    if bearer is not None:
        scheme, _, secret = bearer.partition(b" ")
        if scheme.lower() != b"bearer" or not secret.strip():
            raise Unauthorized("the Authorization header is not `Bearer KEY`")
        return secret.strip()
    return headers.get(b"x-api-key")


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _key(id: str, kept: str) -> Key:
    raw = json.loads(kept)
    expires = raw.get("expires")
    until = datetime.fromisoformat(expires).timestamp() if expires else float("inf")
    return Key(id, raw["name"], Role.named(raw["role"]), raw["sha256"], raw["created"], raw["last4"], expires, until)
