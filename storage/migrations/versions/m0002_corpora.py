"""Corpora with their documents and passages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0002"
down_revision = "m0001"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "corpora",
        sa.Column("pk", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("licence", sa.String),
        sa.Column("created_at", sa.String, nullable=False),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "documents",
        sa.Column("pk", sa.Integer, primary_key=True),
        sa.Column(
            "corpus_pk",
            sa.Integer,
            sa.ForeignKey("corpora.pk", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.UniqueConstraint("corpus_pk", "name"),
    )
    op.create_table(
        "passages",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "document_pk",
            sa.Integer,
            sa.ForeignKey("documents.pk", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("passage_index", sa.Integer, nullable=False),
        sa.Column("start_char", sa.Integer, nullable=False),
        sa.Column("end_char", sa.Integer, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.UniqueConstraint("document_pk", "passage_index"),
        sqlite_autoincrement=True,
    )
