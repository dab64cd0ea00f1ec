"""What live traffic says in figures, and whether shadows agree."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add columns to the tallies."""
    for name, kind in (
        ("scored", sa.BigInteger()),
        ("score", sa.Float(53)),
        ("score_sq", sa.Float(53)),
        ("compared", sa.BigInteger()),
        ("agreed", sa.BigInteger()),
    ):
        op.add_column("tallies", sa.Column(name, kind, nullable=False, server_default="0"))
