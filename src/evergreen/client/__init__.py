"""The Python client of a server; needs httpx and nothing of the server."""

from evergreen.client.client import Client, Flushed, error_of
from evergreen.client.spool import Spool

__all__ = ["Client", "Flushed", "Spool", "error_of"]
