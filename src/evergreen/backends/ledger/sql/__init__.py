"""Records in SQLite or PostgreSQL."""

from evergreen.backends.ledger.sql.address import Options
from evergreen.backends.ledger.sql.ledger import SqlLedger

__all__ = ["Options", "SqlLedger"]
