"""Claims: which running command works on which traces and problems."""

import sqlalchemy as sa
from alembic import op

revision = "b0003"
down_revision = "b0002"


def upgrade() -> None:
    """Create the two tables."""
    op.create_table(
        "claimants",
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("command", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process", sa.String(), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_claimants"),
    )
    op.create_table(
        "claims",
        sa.Column("dataset_pk", sa.Integer(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("labeler", sa.String(), nullable=False),
        sa.Column("item", sa.String(), nullable=False),
        sa.Column("claimant", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("dataset_pk", "unit", "labeler", "item", name="pk_claims"),
        sa.ForeignKeyConstraint(
            ["dataset_pk"], ["datasets.pk"], name="fk_claims_dataset_pk", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["claimant"], ["claimants.token"], name="fk_claims_claimant", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_claims_claimant", "claims", ["claimant"])
