"""Models that devices send in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table of uploads."""
    op.create_table(
        "uploads",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("loop", sa.Text, nullable=False),
        sa.Column("at", sa.String(32).with_variant(TIMESTAMP(timezone=True), "postgresql"), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.UniqueConstraint("id", name="uploads_id"),
    )
    op.create_index("uploads_by_loop", "uploads", ["loop", "seq"])
    op.create_index("uploads_by_state", "uploads", ["loop", "state", "seq"])
