"""Batch jobs on their way, and their requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0005"
down_revision = "m0004"

ENDINGS = "'succeeded', 'failed', 'cancelled', 'expired', 'stuck', 'lost', 'refused', 'never_sent'"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "batch_jobs",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("name", sa.String),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("progress", sa.String, nullable=False),
        sa.Column("progress_at", sa.Float, nullable=False),
        sa.Column("cancelled_at", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("closed_at", sa.Float),
        sa.Column("ending", sa.String),
        sa.Column("detail", sa.String),
        sa.CheckConstraint("state IN ('prepared', 'submitted', 'closed')", name="state"),
        sa.CheckConstraint(f"ending IN ({ENDINGS})", name="ending"),
        sa.CheckConstraint("(state = 'closed') = (ending IS NOT NULL)", name="closed"),
    )
    op.create_table(
        "batch_requests",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("job_id", sa.String, sa.ForeignKey("batch_jobs.id"), index=True),
        sa.Column("jobs", sa.Integer, nullable=False),
        sa.Column("request", sa.String, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("usd", sa.Float),
        sa.Column("meta", sa.JSON, nullable=False),
        sa.CheckConstraint("usd >= 0", name="usd"),
    )
