"""Votes behind judges' labels, and the prompts that judges were asked with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0008"
down_revision = "m0007"

REASONS = (
    "'blocked', 'truncated', 'unreadable', 'no_evidence', 'over_length', 'not_measured', "
    "'model_error', 'no_answer', 'unparsed', 'uncertain', 'disagreement', 'filtered', "
    "'gold_unusable'"
)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "votes",
        sa.Column(
            "trace_label_pk",
            sa.Integer,
            sa.ForeignKey("trace_labels.pk", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("vote_index", sa.Integer, primary_key=True),
        sa.Column("escalated", sa.Boolean, nullable=False),
        sa.Column("resolved_model", sa.String),
        sa.Column("words", sa.JSON, nullable=False),
        sa.Column("first_error_named", sa.Boolean, nullable=False),
        sa.Column("first_error_index", sa.Integer),
        sa.Column("abstention", sa.String),
        sa.Column("abstention_detail", sa.String),
        sa.Column("request_keys", sa.JSON, nullable=False),
        sa.CheckConstraint(f"abstention IN ({REASONS})", name="abstention"),
        sa.CheckConstraint("first_error_named OR first_error_index IS NULL", name="first_error"),
    )
    op.create_table(
        "prompts",
        sa.Column("sha256", sa.String, primary_key=True),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
    )
