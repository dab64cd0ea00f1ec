"""Posts events as signed JSON to a URL, the way of https://www.standardwebhooks.com."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urljoin

import httpx
import msgspec
from pydantic import Field, field_validator

from evergreen.backends.subscriber import from_environment, named, plain, secret
from evergreen.core.errors import ConfigError, Refused, Unavailable
from evergreen.core.ports import Ledger, Store
from evergreen.core.recipe import PluginOptions
from evergreen.core.records import Event

#: Redirects within one host that are followed.
_HOPS = 3


class WebhookOptions(PluginOptions):
    """Where to, and how it is proved that it comes from here."""

    url: str
    """`https://…`, or `env:NAME` where the address itself is a secret."""
    secret_env: str | None = None
    """Variable of the environment that holds the secret to sign with: any text, or `whsec_` and base64."""
    timeout_s: float = Field(10.0, gt=0, le=30)
    """Longest wait for the receiver, in seconds."""
    public_only: bool = False
    """Refuse addresses of private networks and of this machine."""
    headers: dict[str, str] = Field({})
    """Further headers; a value may be `env:NAME`."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://", "env:")):
            raise ValueError("a URL begins with https:// (or http://)")
        return url


class WebhookSubscriber:
    """One POST for each event; anything but 2xx means that it is posted again."""

    Options: ClassVar[type[PluginOptions]] = WebhookOptions
    kinds = ()
    collapse_s = 0.0

    def __init__(
        self,
        options: WebhookOptions,
        *,
        home: Path,  # noqa: ARG002 - every subscriber is given these
        store: Store,  # noqa: ARG002
        now: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._now = now
        self.secrets = (
            *named(options.url, *options.headers.values()),
            *filter(None, (options.secret_env,)),
        )

    def tell(self, event: Event, look: Ledger) -> None:
        """Post an event. Raises `Unavailable` unless it is taken."""
        data = msgspec.json.encode(plain(event, look))
        url = httpx.URL(from_environment(self._options.url, "the webhook's url"))
        for _ in range(_HOPS):
            status, onward = self._post(url, event.id, data)
            if 200 <= status < 300:
                return
            if status not in (307, 308) or not onward:
                raise Unavailable(f"{url.host} answered {status}")
            url = _same_host(url, onward)
        raise Unavailable(f"{url.host} redirects in circles")

    def _post(self, url: httpx.URL, id: str, data: bytes) -> tuple[int, str]:
        head = {
            "content-type": "application/json",
            "user-agent": "evergreen",
            **self._signed(id, data),
        }
        head |= {k: from_environment(v, f"the webhook's header {k}") for k, v in self._options.headers.items()}
        extensions: dict[str, Any] = {}
        target = url
        if self._options.public_only:  # what was checked is what is called: the name is not looked up again
            head["host"] = url.netloc.decode("ascii")
            extensions["sni_hostname"] = url.host
            target = url.copy_with(host=_public(url))
        try:
            with (
                httpx.Client(
                    timeout=self._options.timeout_s,
                    trust_env=not self._options.public_only,
                ) as http,
                http.stream("POST", target, content=data, headers=head, extensions=extensions) as answer,
            ):
                return answer.status_code, answer.headers.get("location", "")
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise Unavailable(
                f"{url.host} cannot be reached: {type(e).__name__}"
            ) from None  # its text may hold the URL

    def _signed(self, id: str, data: bytes) -> dict[str, str]:
        at = str(int(self._now()))
        head = {"webhook-id": id, "webhook-timestamp": at}
        if self._options.secret_env:
            key = _key(
                secret(self._options.secret_env, "the webhook's secret"),
                self._options.secret_env,
            )
            mac = hmac.digest(key, b"%s.%s.%s" % (id.encode(), at.encode(), data), hashlib.sha256)
            head["webhook-signature"] = f"v1,{base64.b64encode(mac).decode()}"
        return head


def _key(text: str, name: str) -> bytes:
    if not text.startswith("whsec_"):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ConfigError(f"what follows whsec_ in {name} is not base64", field="secret_env") from None


def _same_host(url: httpx.URL, onward: str) -> httpx.URL:
    """Return where a redirect leads, if that is the same host, and no less safe. Raises `Refused`."""
    to = httpx.URL(urljoin(str(url), onward))
    if to.host != url.host or (to.scheme, to.port) not in (
        (url.scheme, url.port),
        ("https", None),
    ):
        raise Refused(f"{url.host} redirects to another place, {to.host}: that is not followed")
    return to


def _public(url: httpx.URL) -> str:
    """Return an address of a host, all of whose addresses are public. Raises `Refused`."""
    try:
        found = socket.getaddrinfo(
            url.host,
            url.port or (443 if url.scheme == "https" else 80),
            type=socket.SOCK_STREAM,
        )
    except OSError as e:
        raise Unavailable(f"{url.host} cannot be found: {e.strerror or e}") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    for address in addresses:
        ip = ipaddress.ip_address(address)
        if not ip.is_global or ip.is_multicast:
            raise Refused(
                f"{url.host} is at a private address",
                hint="`public_only` in the subscriber's settings.",
            )
    return addresses[0]
