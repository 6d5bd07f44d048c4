"""The ledger of model calls, and failures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0004"
down_revision = "m0003"

REASONS = (
    "'blocked', 'truncated', 'unreadable', 'no_evidence', 'over_length', 'not_measured', "
    "'model_error', 'no_answer', 'unparsed', 'uncertain', 'disagreement', 'filtered', "
    "'gold_unusable'"
)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "model_calls",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("request", sa.String, nullable=False),
        sa.Column("text", sa.String),
        sa.Column("raw", sa.String, nullable=False),
        sa.Column("finish_reason", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("resolved_model", sa.String),
        sa.Column("input_tokens", sa.Integer, nullable=False),
        sa.Column("cached_tokens", sa.Integer, nullable=False),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("thinking_tokens", sa.Integer, nullable=False),
        sa.Column("usd", sa.Float),
        sa.Column("prices_as_of", sa.String),
        sa.Column("meta", sa.JSON, nullable=False),
        sa.Column("hits", sa.Integer, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.CheckConstraint("usd >= 0", name="usd"),
    )
    op.create_table(
        "failures",
        sa.Column(
            "dataset_pk",
            sa.Integer,
            sa.ForeignKey("datasets.pk", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("stage", sa.String, primary_key=True),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("retryable", sa.Boolean, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.CheckConstraint(f"reason IN ({REASONS})", name="reason"),
    )
