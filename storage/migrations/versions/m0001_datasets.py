"""Datasets with their files, problems, traces and steps, and the evidence both can point at."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    _evidence()
    op.create_table(
        "datasets",
        sa.Column("pk", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("retrieval_config", sa.JSON),
        sa.Column("created_at", sa.String, nullable=False),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "source_files",
        sa.Column("pk", sa.Integer, primary_key=True),
        _dataset(),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("format", sa.String, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("imported_at", sa.String, nullable=False),
        sa.UniqueConstraint("dataset_pk", "name"),
    )
    op.create_table(
        "rejected_rows",
        sa.Column(
            "source_file_pk",
            sa.Integer,
            sa.ForeignKey("source_files.pk", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("file", sa.String, nullable=False),
        sa.Column("line", sa.Integer),
        sa.Column("id", sa.String),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("imported", sa.Boolean, nullable=False),
    )
    _problems_and_traces()


def _dataset() -> sa.Column[int]:
    return sa.Column(
        "dataset_pk",
        sa.Integer,
        sa.ForeignKey("datasets.pk", ondelete="CASCADE"),
        nullable=False,
    )


def _evidence() -> None:
    op.create_table(
        "evidence_passages",
        sa.Column("pk", sa.Integer, primary_key=True),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("corpus", sa.String, nullable=False),
        sa.Column("document", sa.String, nullable=False),
        sa.Column("passage_index", sa.Integer, nullable=False),
        sa.Column("start_char", sa.Integer, nullable=False),
        sa.Column("end_char", sa.Integer, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "evidence_sets",
        sa.Column("pk", sa.Integer, primary_key=True),
        sa.Column("digest", sa.String, nullable=False),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "evidence",
        sa.Column(
            "evidence_set_pk",
            sa.Integer,
            sa.ForeignKey("evidence_sets.pk", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("similarity", sa.Float),
        sa.Column(
            "evidence_passage_pk",
            sa.Integer,
            sa.ForeignKey("evidence_passages.pk"),
            nullable=False,
            index=True,
        ),
        sa.CheckConstraint("similarity BETWEEN -1 AND 1", name="similarity"),
        sa.CheckConstraint("rank >= 0", name="rank"),
    )


def _problems_and_traces() -> None:
    op.create_table(
        "problems",
        sa.Column("pk", sa.Integer, primary_key=True),
        _dataset(),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("question", sa.String, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("answer", sa.String),
        sa.Column("images", sa.JSON, nullable=False),
        sa.Column("meta", sa.JSON, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("evidence_set_pk", sa.Integer, sa.ForeignKey("evidence_sets.pk"), index=True),
        sa.UniqueConstraint("dataset_pk", "id"),
    )
    op.create_table(
        "traces",
        sa.Column("pk", sa.Integer, primary_key=True),
        _dataset(),
        sa.Column(
            "problem_pk",
            sa.Integer,
            sa.ForeignKey("problems.pk", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column(
            "source_file_pk",
            sa.Integer,
            sa.ForeignKey("source_files.pk", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("subset", sa.String, nullable=False),
        sa.Column("generator", sa.String),
        sa.Column("final_answer", sa.String),
        sa.Column("final_answer_correct", sa.Boolean),
        sa.Column("n_steps", sa.Integer, nullable=False),
        sa.Column("meta", sa.JSON, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("evidence_set_pk", sa.Integer, sa.ForeignKey("evidence_sets.pk"), index=True),
        sa.UniqueConstraint("dataset_pk", "id"),
        sa.CheckConstraint("n_steps >= 1", name="n_steps"),
    )
    op.create_table(
        "steps",
        sa.Column(
            "trace_pk", sa.Integer, sa.ForeignKey("traces.pk", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("step_index", sa.Integer, primary_key=True),
        sa.Column("text", sa.String, nullable=False),
    )
