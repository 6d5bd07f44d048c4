"""What a call was for, and an index that holds all that is summed up over calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m0007"
down_revision = "m0006"

SUMMED = (
    "model",
    "purpose",
    "resolved_model",
    "usd",
    "hits",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "thinking_tokens",
)


def upgrade() -> None:
    """Add the column and the index."""
    op.add_column("model_calls", sa.Column("purpose", sa.String))
    if op.get_bind().dialect.name == "sqlite":  # older databases are SQLite files
        op.execute("UPDATE model_calls SET purpose = json_extract(meta, '$.purpose')")
    op.create_index("ix_model_calls_spending", "model_calls", list(SUMMED))
