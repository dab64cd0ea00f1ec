"""Where requests come from: the names this server goes by, and the browsers' pages that may call it."""

from __future__ import annotations

import ipaddress
import re

from evergreen.core.errors import Refused

_LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_REMEMBERED = 1000
#: Headers by which proxies tell that they passed a call on.
PASSED_ON = frozenset(
    (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip")
)

Head = list[tuple[bytes, bytes]]


def loopback(host: str) -> bool:
    """Say whether only this machine can reach an address.

    >>> [loopback(h) for h in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Origins:
    """Rules for the `Host` and `Origin` headers; answers are remembered, so that asking costs a look-up."""

    def __init__(self, cors: tuple[str, ...], hosts: tuple[str, ...]) -> None:
        self._everyone = "*" in cors
        self._listed = [_pattern(origin) for origin in cors if origin != "*"]
        self._own = frozenset(name.lower() for name in hosts)
        self._names = frozenset(name.lower() for name in (*_LOCAL_NAMES, *hosts))
        self._good_hosts: dict[bytes | None, bool] = {}
        self._trusted: dict[bytes, bool] = {}

    def check_host(self, host: bytes | None) -> None:
        """Refuse a name that is not ours: a page elsewhere may have pointed its own name at this machine."""
        good = self._good_hosts.get(host)
        if good is None:
            good = _bare(host) in self._names
            _remember(self._good_hosts, host, good)
        if not good:
            raise Refused(
                f"this server does not go by the name {(host or b'').decode('latin-1')!r}",
                field="Host",
                hint="Add the name to `hosts` in the [http] table of evergreen.toml, or call it as localhost.",
            )

    def trusted(self, origin: bytes) -> bool:
        """Say whether an origin is on this machine or listed by name."""
        good = self._trusted.get(origin)
        if good is None:
            text = origin.decode("latin-1")
            good = bool(_LOCAL.fullmatch(text)) or any(p.fullmatch(text) for p in self._listed)
            _remember(self._trusted, origin, good)
        return good

    def allowed(self, origin: bytes, *, open: bool) -> bool:
        """Say whether a page from `origin` may call; `open` routes are those that "*" opens to everyone."""
        return (open and self._everyone) or self.trusted(origin)

    def check_origin(self, origin: bytes, host: bytes | None, *, open: bool) -> None:
        """Refuse a change asked for by a page from elsewhere."""
        _, _, netloc = origin.partition(b"://")
        if not (netloc and netloc.lower() == (host or b"").lower()) and not self.allowed(origin, open=open):
            raise Refused(
                f"pages from {origin.decode('latin-1')!r} may not do this",
                field="Origin",
                hint="Add the origin to `cors` in the [http] table of evergreen.toml.",
            )

    def check_own(self, origin: bytes, host: bytes | None) -> None:
        """Refuse a change that somebody else's page asks for with the cookie of a person who is signed in here.

        Browsers send cookies to every port of a machine, and from pages of neighbouring names.
        """
        netloc = origin.partition(b"://")[2].lower()
        if not netloc or (netloc != (host or b"").lower() and _bare(netloc) not in self._own):
            raise Refused(
                f"pages from {origin.decode('latin-1')!r} may not act for who is signed in here",
                field="Origin",
                hint="Send a key. If this is the server's own address, let the proxy in front pass the Host header on, "
                "or add the name to `hosts` in the [http] table of evergreen.toml.",
            )

    def cors(self, origin: bytes | None, *, open: bool) -> Head:
        """Return the headers that let a browser's page read the answer; none if it may not."""
        if origin is None or not self.allowed(origin, open=open):
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"vary", b"Origin"),
            (b"access-control-expose-headers", b"x-model-version, x-model-generation, retry-after"),
        ]

    def preflight(self, origin: bytes, *, open: bool) -> Head:
        """Return the headers that answer a browser's question before the call; none if it may not."""
        if not self.allowed(origin, open=open):
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"vary", b"Origin"),
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"authorization, x-api-key, content-type, idempotency-key"),
            (b"access-control-max-age", b"600"),
        ]


def _pattern(origin: str) -> re.Pattern[str]:
    """Read an origin; `:*` at its end stands for any port.

    >>> bool(_pattern("http://localhost:*").fullmatch("http://localhost:8080"))
    True
    """
    exact = re.escape(origin.rstrip("/").removesuffix(":*"))
    return re.compile(exact + (r"(:\d+)?" if origin.endswith(":*") else ""), re.IGNORECASE)


def _bare(host: bytes | None) -> str:
    """Return a host header without its port."""
    return re.sub(r":\d+$", "", (host or b"").decode("latin-1").lower())


def _remember(memory: dict[bytes | None, bool] | dict[bytes, bool], key: bytes | None, value: bool) -> None:
    if len(memory) >= _REMEMBERED:  # somebody makes names up
        memory.clear()
    memory[key] = value  # type: ignore[index]
