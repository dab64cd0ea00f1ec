"""Experiments, whom they exposed to what, and the spread of latencies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the tables of experiments and exposures; add a column to the tallies."""
    op.add_column("tallies", sa.Column("latency_sq", sa.Float(53), nullable=False, server_default="0"))
    op.create_table(
        "experiments",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("loop", sa.Text, nullable=False),
        sa.Column("at", sa.String(32).with_variant(TIMESTAMP(timezone=True), "postgresql"), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.UniqueConstraint("id", name="experiments_id"),
    )
    op.create_index("experiments_by_loop", "experiments", ["loop", "seq"])
    op.create_index("experiments_by_state", "experiments", ["loop", "state", "seq"])
    op.create_table(
        "exposures",
        sa.Column("experiment", sa.Text, primary_key=True),
        sa.Column("unit", sa.Text, primary_key=True),
        sa.Column("arm", sa.Text, nullable=False),
    )
