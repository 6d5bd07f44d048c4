"""Labelers with their labels, quotes and continuations.

The lists of allowed words are written out: a revision describes the schema of its day, whatever the
enums say later.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0003"
down_revision = "m0002"

KINDS = "'gold', 'judge', 'mc', 'consensus', 'prm', 'expert'"
REASONS = (
    "'blocked', 'truncated', 'unreadable', 'no_evidence', 'over_length', 'not_measured', "
    "'model_error', 'no_answer', 'unparsed', 'uncertain', 'disagreement', 'filtered', "
    "'gold_unusable'"
)
VERDICTS = "'correct', 'incorrect', 'neutral'"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "labelers",
        sa.Column("pk", sa.Integer, primary_key=True),
        _parent("dataset_pk", "datasets.pk"),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("model", sa.String),
        sa.Column("resolved_model", sa.String),
        sa.Column("created_at", sa.String, nullable=False),
        sa.UniqueConstraint("dataset_pk", "name"),
        sa.CheckConstraint(f"kind IN ({KINDS})", name="kind"),
    )
    op.create_table(
        "trace_labels",
        sa.Column("pk", sa.Integer, primary_key=True),
        _parent("labeler_pk", "labelers.pk"),
        _parent("trace_pk", "traces.pk", index=True),
        sa.Column("first_error_given", sa.Boolean, nullable=False),
        sa.Column("first_error_index", sa.Integer),
        sa.Column("abstention", sa.String),
        sa.Column("abstention_detail", sa.String),
        sa.Column("meta", sa.JSON, nullable=False),
        sa.Column("imported", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.UniqueConstraint("labeler_pk", "trace_pk"),
        sa.CheckConstraint(f"abstention IN ({REASONS})", name="abstention"),
        sa.CheckConstraint("first_error_given OR first_error_index IS NULL", name="first_error"),
    )
    _step_labels()
    op.create_table(
        "continuations",
        _parent("trace_label_pk", "trace_labels.pk", primary_key=True),
        sa.Column("step_index", sa.Integer, primary_key=True),
        sa.Column("continuation_index", sa.Integer, primary_key=True),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("finish_reason", sa.String, nullable=False),
        sa.Column("answer", sa.String),
        sa.Column("correct", sa.Boolean),
        sa.Column("tokens", sa.Integer, nullable=False),
    )


def _parent(
    name: str, target: str, *, index: bool = False, primary_key: bool = False
) -> sa.Column[int]:
    return sa.Column(
        name,
        sa.Integer,
        sa.ForeignKey(target, ondelete="CASCADE"),
        nullable=False,
        index=index,
        primary_key=primary_key,
    )


def _step_labels() -> None:
    op.create_table(
        "step_labels",
        _parent("trace_label_pk", "trace_labels.pk", primary_key=True),
        sa.Column("step_index", sa.Integer, primary_key=True),
        sa.Column("verdict", sa.String),
        sa.Column("score", sa.Float),
        sa.Column("abstention", sa.String),
        sa.Column("abstention_detail", sa.String),
        sa.Column("successes", sa.Integer),
        sa.Column("continuations", sa.Integer),
        sa.Column("unparsed", sa.Integer),
        sa.Column("unfinished", sa.Integer),
        sa.Column("reasoning", sa.String),
        sa.CheckConstraint(f"verdict IN ({VERDICTS})", name="verdict"),
        sa.CheckConstraint(f"abstention IN ({REASONS})", name="abstention"),
        sa.CheckConstraint("score BETWEEN 0 AND 1", name="score"),
        sa.CheckConstraint(
            "(abstention IS NULL) = (verdict IS NOT NULL OR score IS NOT NULL)", name="word"
        ),
    )
    op.create_table(
        "quotes",
        sa.Column("trace_label_pk", sa.Integer, primary_key=True),
        sa.Column("step_index", sa.Integer, primary_key=True),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("document", sa.Integer),
        sa.Column("verified", sa.Boolean, nullable=False),
        sa.Column("start_char", sa.Integer),
        sa.Column("end_char", sa.Integer),
        sa.Column("method", sa.String),
        sa.ForeignKeyConstraint(
            ["trace_label_pk", "step_index"],
            ["step_labels.trace_label_pk", "step_labels.step_index"],
            ondelete="CASCADE",
        ),
    )
