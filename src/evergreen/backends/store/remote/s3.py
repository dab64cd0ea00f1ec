"""A store in a bucket of S3, or of anything that speaks S3."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from evergreen.backends.store import BLOCK
from evergreen.backends.store.remote.objects import RemoteStore
from evergreen.backends.store.remote.patience import patiently
from evergreen.backends.store.remote.s3_errors import code_of, in_words, never_came, status_of, wait_s
from evergreen.core.errors import ConfigError, EvergreenError, NotFound
from evergreen.core.recipe import PluginOptions

#: Files above this go in parts of this; a part is what is sent again after a break.
PART = 8 * 1024 * 1024
#: S3 takes 10,000 parts; larger files have larger ones.
_MOST_PARTS = 9_000
T = TypeVar("T")


class S3Options(PluginOptions):
    """Settings of the S3 store. Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""

    url: str
    """s3://bucket/prefix"""
    endpoint: str | None = None
    """Address of a server other than Amazon's; AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL if not set."""
    region: str | None = None
    """AWS_REGION if not set; "us-east-1" if that is not set either."""


class S3Store(RemoteStore):
    """Keeps the promises of `Store` in a bucket."""

    Options = S3Options

    def __init__(self, options: S3Options, *, home: Path, state: Path) -> None:
        del home, state  # nothing is kept here: a broken upload is remembered by the server
        super().__init__(S3Objects(options))


class S3Objects:
    """Objects of one bucket below one prefix."""

    staleness_s = 0.0

    def __init__(self, options: S3Options, *, part: int = PART, sleep: Callable[[float], None] = time.sleep) -> None:
        url = urlsplit(options.url)
        if url.scheme != "s3" or not url.netloc or url.query or url.fragment:
            raise ConfigError(f"{options.url} is no place in S3", field="url", hint="Say s3://bucket/prefix.")
        self.bucket, folder = url.netloc, url.path.strip("/")
        self._prefix = f"{folder}/" if folder else ""
        self._options, self._part, self._sleep = options, part, sleep
        self._first, self._making = threading.Lock(), threading.Lock()
        self._made: Any = None
        self._exclusive: bool | None = None

    @property
    def exclusive(self) -> bool:
        """Whether the server keeps its word on conditional puts; some take them and overwrite all the same."""
        if self._exclusive is None:
            self._exclusive = self._probe()
        return self._exclusive

    def read(self, path: str) -> bytes | None:
        """Return an object."""

        def ask() -> bytes | None:
            try:
                body: bytes = self._client.get_object(**self._at(path))["Body"].read()
            except ClientError as e:
                if code_of(e) in ("NoSuchKey", "404"):
                    return None
                raise
            return body

        return self._ask(ask)

    def write(self, path: str, data: bytes) -> None:
        """Put an object; S3 shows it whole or not at all."""
        self._ask(lambda: self._client.put_object(**self._at(path), Body=data, ContentMD5=_md5(data)[1]))

    def create(self, path: str, data: bytes) -> bool:
        """Put an object on the condition that there is none."""
        if self.exclusive:
            return self._ask(self._creation(path, data))
        with self._first:
            if self.read(path) is not None:
                return False
            self.write(path, data)
            return True

    def _creation(self, path: str, data: bytes) -> Callable[[], bool]:
        unsure = False  # whether a try before may have come through without our hearing of it

        def ask() -> bool:
            nonlocal unsure
            try:
                self._client.put_object(**self._at(path), Body=data, ContentMD5=_md5(data)[1], IfNoneMatch="*")
            except ClientError as e:
                if status_of(e) == 412:
                    return unsure and self.read(path) == data
                unsure = unsure or status_of(e) >= 500
                raise
            except Exception:
                unsure = True
                raise
            return True

        return ask

    def _probe(self) -> bool:
        path = f".evergreen-probe-{uuid4().hex}"
        try:
            return self._ask(self._creation(path, b"1")) and not self._ask(self._creation(path, b"2"))
        except EvergreenError as e:
            if isinstance(e.__cause__, ClientError) and status_of(e.__cause__) in (400, 501):
                return False  # it knows nothing of conditions and says so
            raise
        finally:
            with suppress(EvergreenError):  # who may not delete leaves one byte
                self.remove(path)

    def paths(self, prefix: str) -> Iterator[str]:
        """Name every object at and below a prefix."""
        found, token = self._page(prefix)
        if prefix and token:
            # Many are at, below and beside it, as "a/10" is beside "a/1". What is at it comes first.
            yield from (path for path in found[:1] if path == prefix)
            prefix = f"{prefix}/"
            found, token = self._page(prefix)
        yield from (path for path in found if not prefix or f"{path}/".startswith(f"{prefix.rstrip('/')}/"))
        while token:
            found, token = self._page(prefix, ContinuationToken=token)
            yield from found

    def _page(self, prefix: str, **more: Any) -> tuple[Sequence[str], str | None]:
        page = self._ask(lambda: self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._prefix + prefix, **more))
        found = [entry["Key"].removeprefix(self._prefix) for entry in page.get("Contents", ())]
        return found, page.get("NextContinuationToken") if page.get("IsTruncated") else None

    def remove(self, path: str) -> None:
        """Remove an object."""
        self._ask(lambda: self._client.delete_object(**self._at(path)))

    def upload(self, path: str, file: Path, told: Callable[[int], None]) -> None:
        """Store a file, a large one in parts; what parts the server has of it already are compared, not sent."""
        size = file.stat().st_size
        if size <= self._part:
            self.write(path, file.read_bytes())
            told(size)
            return
        try:
            self._in_parts(path, file, size, told)
        except EvergreenError as e:
            # Another process has finished or given up the same upload, or an answer of ours was lost.
            if not isinstance(e.__cause__, ClientError) or code_of(e.__cause__) != "NoSuchUpload":
                raise
            if self._size(path) != size:
                self._in_parts(path, file, size, told)

    def _in_parts(self, path: str, file: Path, size: int, told: Callable[[int], None]) -> None:
        begun = self._begun(path)
        upload = begun[-1] if begun else self._begin(path)
        there = self._parts(path, upload) if begun else {}
        step = max(self._part, -(-size // _MOST_PARTS))
        parts = []
        with file.open("rb") as data:
            for number in range(1, -(-size // step) + 1):
                chunk = data.read(step)
                digest, header = _md5(chunk)
                etag = there.get(number, "")
                if etag.strip('"') != digest:
                    etag = self._send(path, upload, number, chunk, header)
                parts.append({"PartNumber": number, "ETag": etag})
                told(data.tell())
        done = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
        self._ask(lambda: self._client.complete_multipart_upload(**self._at(path), **done))
        for other in self._begun(path):  # whoever is at one of these finds the file there
            with suppress(EvergreenError):  # it costs room, not safety
                self._give_up(path, other)

    def _send(self, path: str, upload: str, number: int, chunk: bytes, md5: str) -> str:
        part = {"UploadId": upload, "PartNumber": number, "Body": chunk, "ContentMD5": md5}
        etag: str = self._ask(lambda: self._client.upload_part(**self._at(path), **part))["ETag"]
        return etag

    def _begin(self, path: str) -> str:
        upload: str = self._ask(lambda: self._client.create_multipart_upload(**self._at(path)))["UploadId"]
        return upload

    def _begun(self, path: str) -> Sequence[str]:
        """Find uploads of a file that broke off, the newest last."""
        key = self._prefix + path
        page = self._ask(lambda: self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=key))
        found = [(u["Initiated"], u["UploadId"]) for u in page.get("Uploads", ()) if u["Key"] == key]
        return [upload for _, upload in sorted(found)]

    def _parts(self, path: str, upload: str) -> Mapping[int, str]:
        """Return the parts that the server has, {number: ETag}."""
        found: dict[int, str] = {}
        page: Mapping[str, Any] = {"IsTruncated": True, "NextPartNumberMarker": 0}
        while page.get("IsTruncated"):
            ask = {**self._at(path), "UploadId": upload, "PartNumberMarker": page["NextPartNumberMarker"]}
            page = self._ask(partial(self._client.list_parts, **ask))
            found |= {part["PartNumber"]: part["ETag"] for part in page.get("Parts", ())}
        return found

    def _give_up(self, path: str, upload: str) -> None:
        self._ask(lambda: self._client.abort_multipart_upload(**self._at(path), UploadId=upload))

    def _size(self, path: str) -> int | None:
        def ask() -> int | None:
            try:
                size: int = self._client.head_object(**self._at(path))["ContentLength"]
            except ClientError as e:
                if status_of(e) == 404:
                    return None
                raise
            return size

        return self._ask(ask)

    def download(self, path: str, file: Path, told: Callable[[int], None]) -> None:
        """Write an object to a file; each break is taken up where it broke, as long as anything comes."""
        with file.open("xb") as out:

            def ask() -> None:
                at = out.tell()
                try:
                    body = self._client.get_object(**self._at(path), **({"Range": f"bytes={at}-"} if at else {}))[
                        "Body"
                    ]
                except ClientError as e:
                    if code_of(e) == "InvalidRange":
                        return  # it broke after the last byte
                    if code_of(e) in ("NoSuchKey", "404"):
                        raise NotFound(f"there is no {path} in the bucket {self.bucket}") from e
                    raise
                for block in body.iter_chunks(BLOCK):
                    out.write(block)
                    told(out.tell())

            while True:
                before = out.tell()
                try:
                    return self._ask(ask)
                except EvergreenError as e:
                    if out.tell() == before or not never_came(e.__cause__):
                        raise

    def _at(self, path: str) -> Mapping[str, str]:
        return {"Bucket": self.bucket, "Key": self._prefix + path}

    def _ask(self, ask: Callable[[], T]) -> T:
        """Ask, again if need be; what goes wrong is said in our words."""
        try:
            return patiently(ask, wait_s, sleep=self._sleep)
        except (BotoCoreError, ClientError, ResponseParserError) as e:
            raise in_words(e, self.bucket, self._client.meta.endpoint_url) from e

    @property
    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = _client(self._options)
            return self._made


def _client(options: S3Options) -> Any:
    session = boto3.session.Session()
    region = options.region or os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
    elsewhere = options.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        retries={"total_max_attempts": 1},  # `patiently` does it, and knows what may have come through
        connect_timeout=10,
        read_timeout=60,
        s3={"addressing_style": "path" if elsewhere else "auto"},
        # Servers other than Amazon's refuse what newer clients add by themselves; MD5 says the same.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return session.client("s3", endpoint_url=options.endpoint or None, region_name=region, config=config)
    except (BotoCoreError, ValueError) as e:
        raise ConfigError(
            f"S3 cannot be asked: {type(e).__name__}: the address or the region is not well-formed",
            field="endpoint",
            hint="Look at the settings endpoint and region, and at AWS_ENDPOINT_URL and AWS_REGION.",
        ) from e


def _md5(data: bytes) -> tuple[str, str]:
    """Return the MD5 of what is sent, as ETags spell it and as the header Content-MD5 does; no secret hangs on it."""
    digest = hashlib.md5(data, usedforsecurity=False)
    return digest.hexdigest(), b64encode(digest.digest()).decode()
