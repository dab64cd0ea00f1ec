"""What came of answers, beside the samples, and whose questions follow each other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add columns to the samples, and the index by which a session's newest is found."""
    for name, kind in (("session", sa.Text()), ("right", sa.Boolean()), ("score", sa.Float(53))):
        op.add_column("samples", sa.Column(name, kind, nullable=True))
    there = sa.text("session IS NOT NULL")
    op.create_index(
        "samples_by_session", "samples", ["loop", "session", "seq"], sqlite_where=there, postgresql_where=there
    )
