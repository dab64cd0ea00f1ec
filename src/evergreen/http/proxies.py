"""What proxies say of a call they pass on: believed of those that are listed, of nobody else."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """Middleware that puts the caller's own address and scheme in place of the proxy's."""

    def __init__(self, app: ASGIApp, proxies: Sequence[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(proxy) for proxy in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on as its caller made it."""
        peer = (scope.get("client") or ("", 0))[0]
        if scope["type"] == "http" and self.listed(peer):
            headers = dict(scope["headers"])
            address = self.origin(peer, headers.get(b"x-forwarded-for", b"").decode("latin-1"))
            proto = headers.get(b"x-forwarded-proto", b"").rpartition(b",")[2].strip().lower()
            scheme = proto.decode() if proto in (b"http", b"https") else scope["scheme"]
            scope = {**scope, "client": (address, 0), "scheme": scheme}
        await self._app(scope, receive, send)

    def listed(self, address: str) -> bool:
        """Say whether an address is one of our proxies."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks)

    def origin(self, peer: str, forwarded: str) -> str:
        """Return who called: the last address of X-Forwarded-For that is no proxy of ours. What stands before it
        anybody may have made up.

        >>> ours = Proxies(None, ["10.0.0.0/8"])
        >>> ours.origin("10.0.0.1", "1.2.3.4, 203.0.113.9, 10.0.0.2"), ours.origin("10.0.0.1", "rubbish")
        ('203.0.113.9', '10.0.0.1')
        """
        for said in reversed(forwarded.split(",")):
            address = said.strip()
            try:
                ipaddress.ip_address(address)
            except ValueError:
                return peer
            peer = address
            if not self.listed(address):
                return address
        return peer
