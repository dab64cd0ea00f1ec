"""What goes wrong with S3, in our words: what may pass, what is a setting, what is neither."""

from __future__ import annotations

from contextlib import suppress

from botocore.exceptions import (
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from evergreen.core.errors import ConfigError, EvergreenError, Unavailable

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_PASSING = ("SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "Throttling", "BadDigest")
_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301")


def code_of(e: ClientError) -> str:
    """Return what S3 calls an error."""
    return str(e.response.get("Error", {}).get("Code", ""))


def status_of(e: ClientError) -> int:
    """Return the HTTP status of an error."""
    return int(e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def wait_s(e: Exception) -> float | None:
    """Say how long the server wants to be left alone before it is asked again; None if that does not help."""
    if isinstance(e, ClientError):
        if status_of(e) in (429, 500, 502, 503, 504) or code_of(e) in _PASSING:
            with suppress(ValueError):
                return float(e.response["ResponseMetadata"].get("HTTPHeaders", {}).get("retry-after", 0))
            return 0.0
        return None
    return 0.0 if never_came(e) else None


def never_came(e: BaseException | None) -> bool:
    """Say whether an answer did not come, or came in part."""
    return isinstance(e, ConnectionError | HTTPClientError | IncompleteReadError | ResponseParserError)


def in_words(e: Exception, bucket: str, endpoint: str) -> EvergreenError:
    """Say what is wrong and what to do; no value of a credential is ever part of it."""
    if isinstance(e, NoCredentialsError | PartialCredentialsError):
        return ConfigError(f"S3 needs credentials: {_KEYS} are not both set", hint="Set them in the environment.")
    if isinstance(e, ClientError):
        return _refused(e, bucket)
    if never_came(e):
        return Unavailable(f"S3 at {endpoint or 'its address'} does not answer ({type(e).__name__})")
    return ConfigError(
        f"S3 cannot be asked ({type(e).__name__}): the bucket, the address or the region is not well-formed",
        field="url",
        hint="Look at the settings url, endpoint and region, and at AWS_ENDPOINT_URL and AWS_REGION.",
    )


def _refused(e: ClientError, bucket: str) -> EvergreenError:
    code, status = code_of(e), status_of(e)
    if code == "NoSuchBucket":
        return ConfigError(f'there is no bucket "{bucket}"', field="url", hint="Make it, or correct the name.")
    if code == "RequestTimeTooSkewed":
        return ConfigError("S3 refuses this machine's clock", hint="Set the clock (NTP).")
    if code in _REGION:
        return ConfigError(
            f'the bucket "{bucket}" lies in another region', field="region", hint="Set AWS_REGION to the bucket's."
        )
    if status in (401, 403):
        return ConfigError(
            f'S3 refused access to the bucket "{bucket}" ({code})',
            hint=f"Check {_KEYS} (and AWS_SESSION_TOKEN), and that they may list, read, write and delete there.",
        )
    return Unavailable(f'S3 answered {status} {code} for the bucket "{bucket}"')
