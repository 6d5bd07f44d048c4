"""Files behind the documents of a corpus, its source, and evidence found by the steps of a trace."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0006"
down_revision = "m0005"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "corpus_sources",
        _key("corpus_pk", "corpora.pk"),
        sa.Column("source", sa.String, nullable=False),
    )
    op.create_table(
        "corpus_files",
        sa.Column("pk", sa.Integer, primary_key=True),
        sa.Column(
            "corpus_pk",
            sa.Integer,
            sa.ForeignKey("corpora.pk", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("root", sa.String, nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("sha256", sa.String),
        sa.Column("settings", sa.String, nullable=False),
        sa.Column("problems", sa.JSON, nullable=False),
        sa.UniqueConstraint("corpus_pk", "root", "path"),
    )
    op.create_table(
        "document_origins",
        _key("document_pk", "documents.pk"),
        sa.Column(
            "corpus_file_pk",
            sa.Integer,
            sa.ForeignKey("corpus_files.pk", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("split", sa.String, nullable=False),
    )
    op.create_table(
        "trace_evidence",
        _key("trace_pk", "traces.pk"),
        sa.Column(
            "evidence_set_pk",
            sa.Integer,
            sa.ForeignKey("evidence_sets.pk"),
            nullable=False,
            index=True,
        ),
    )
    op.create_table(
        "evidence_steps",
        sa.Column("evidence_set_pk", sa.Integer, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("step_index", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["evidence_set_pk", "position"],
            ["evidence.evidence_set_pk", "evidence.position"],
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("step_index >= 0", name="step_index"),
    )


def _key(column: str, target: str) -> sa.Column[int]:
    return sa.Column(
        column, sa.Integer, sa.ForeignKey(target, ondelete="CASCADE"), primary_key=True
    )
