"""The language of every document, and which notes of an import are harmless."""

import sqlalchemy as sa
from alembic import op

from traces.words import detect_language

revision = "b0005"
down_revision = "b0004"


def upgrade() -> None:
    """Add two columns, and detect the languages of stored documents."""
    op.add_column("rejected_rows", sa.Column("harmless", sa.Boolean(), nullable=True))
    op.add_column("documents", sa.Column("language", sa.String(), nullable=True))
    documents = sa.table("documents", sa.column("pk"), sa.column("text"), sa.column("language"))
    connection = op.get_bind()
    for pk in connection.scalars(sa.text("SELECT pk FROM documents")).all():
        here = documents.c.pk == pk
        text = connection.scalar(sa.select(documents.c.text).where(here))
        connection.execute(
            sa.update(documents).where(here).values(language=detect_language(text or ""))
        )
