"""Expert review: the log of answers, and who is being asked what."""

import sqlalchemy as sa
from alembic import op

revision = "b0007"
down_revision = "b0005"

_ANSWERS = "correct", "incorrect", "neutral", "cannot_tell", "skip", "undo", "flag", "unflag"
_PURPOSES = (
    *("queue", "audit", "double", "repeat"),
    *("training", "adjudication", "check", "import"),
)


def upgrade() -> None:
    """Create the two tables."""
    text = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.create_table(
        "review_answers",
        sa.Column("pk", sa.Integer(), nullable=False),
        sa.Column("dataset_pk", sa.Integer(), nullable=False),
        sa.Column("trace_id", text, nullable=False),
        sa.Column("digest", text, nullable=False),
        sa.Column("step_index", sa.Integer(), nullable=False),
        sa.Column("expert", text, nullable=False),
        sa.Column("answer", text, nullable=False),
        sa.Column("token", text, nullable=False),
        sa.Column("note", text, nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("opinions", text, nullable=True),
        sa.Column("purpose", text, nullable=False),
        sa.Column("at", text, nullable=False),
        sa.PrimaryKeyConstraint("pk", name="pk_review_answers"),
        sa.UniqueConstraint("dataset_pk", "token", name="uq_review_answers_dataset_pk_token"),
        sa.CheckConstraint(f"answer IN {_ANSWERS!r}", name="answer"),
        sa.CheckConstraint(f"purpose IN {_PURPOSES!r}", name="purpose"),
        sa.CheckConstraint("step_index >= 0", name="step_index"),
        sa.ForeignKeyConstraint(
            ["dataset_pk"], ["datasets.pk"], name="fk_review_answers_dataset_pk", ondelete="CASCADE"
        ),
    )
    for columns in (["dataset_pk", "trace_id", "pk"], ["dataset_pk", "pk"]):
        op.create_index(f"ix_review_answers_{'_'.join(columns)}", "review_answers", columns)
    op.create_table(
        "review_leases",
        sa.Column("dataset_pk", sa.Integer(), nullable=False),
        sa.Column("item", text, nullable=False),
        sa.Column("expert", text, nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("dataset_pk", "item", "expert", name="pk_review_leases"),
        sa.ForeignKeyConstraint(
            ["dataset_pk"], ["datasets.pk"], name="fk_review_leases_dataset_pk", ondelete="CASCADE"
        ),
    )
