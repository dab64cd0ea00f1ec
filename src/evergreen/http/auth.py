"""Who calls: keys and their roles, kept in the ledger as hashes, and what callers without a key may do."""

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
from datetime import UTC, datetime
from enum import IntEnum
from typing import Literal, NamedTuple

from evergreen.core.errors import InvalidInput, NotFound, Refused, Unauthorized
from evergreen.core.ports import Ledger

log = logging.getLogger("evergreen.http")

_PREFIX = "egk_"
_SCOPE = "key"
#: How long a revoked key may still work, in seconds.
_FRESH = 1.0

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


class Caller(NamedTuple):
    """Who calls: the name that goes into the history, the role, and how we know."""

    name: str
    role: Role
    via: Literal["key", "session", "open", "anonymous"]
    id: str | None = None  #: of the key


def create(ledger: Ledger, name: str, role: str) -> tuple[str, str]:
    """Make a key and return (id, key); the key can never be shown again."""
    rank = Role.named(role)
    if rank is Role.NONE:
        raise InvalidInput("a key without a role opens nothing", field="role")
    if not 0 < len(name.strip()) <= 80:
        raise InvalidInput("a key's name has 1 to 80 characters", field="name")
    id, key = secrets.token_hex(6), _PREFIX + secrets.token_urlsafe(32)
    kept = {
        "name": name.strip(),
        "role": rank.name.lower(),
        "sha256": _digest(key),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "last4": key[-4:],
    }
    ledger.remember(_SCOPE, id, json.dumps(kept))
    return id, key


def listing(ledger: Ledger) -> list[Key]:
    """Return all keys, oldest first."""
    return sorted((_key(id, kept) for id, kept in ledger.recall_all(_SCOPE).items()), key=lambda k: (k.created, k.id))


def revoke(ledger: Ledger, id: str) -> None:
    """Forget a key; running servers refuse it within a second, and its sessions with it."""
    if ledger.recall(_SCOPE, id) is None:
        raise NotFound(f"there is no key {id}", field="id")
    ledger.remember(_SCOPE, id, None)


def demand(caller: Caller, role: Role) -> str:
    """Return the caller's name, or raise `Unauthorized` (nobody known) or `Refused` (somebody lesser)."""
    if caller.role >= role:
        return caller.name
    if caller.via in ("key", "session"):
        raise Refused(f"this needs the role {role.name.lower()}; {caller.name} is {caller.role.name.lower()}")
    raise Unauthorized(f"this needs a key with the role {role.name.lower()}")


class Keys:
    """The keys as this process knows them: read from the ledger at most once a second."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._read_at = float("-inf")
        self._by_digest: dict[str, Key] = {}
        self._known: dict[bytes, Key] = {}  # header value -> key, so that hashing is not done for every request
        self._by_id: dict[str, Key] = {}
        self._reading: asyncio.Lock | None = None

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def stale(self) -> bool:
        """Whether it is time to read them again."""
        return self._clock() - self._read_at > _FRESH

    def read(self) -> None:
        """Read all keys from the ledger (blocking)."""
        kept = listing(self._ledger)
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

    def by_id(self, id: str) -> Key | None:
        """Return a key that has not been revoked."""
        return self._by_id.get(id)

    def by_secret(self, secret: bytes) -> Key:
        """Return the key that was sent, or raise `Unauthorized`."""
        known = self._known.get(secret)
        if known is not None:
            return known
        digest = hashlib.sha256(secret).hexdigest()
        key = self._by_digest.get(digest)
        if key is None or not hmac.compare_digest(key.sha256, digest):
            raise Unauthorized("this key is not known here")
        self._known[secret] = key
        return key


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
    return Key(id, raw["name"], Role.named(raw["role"]), raw["sha256"], raw["created"], raw["last4"])
