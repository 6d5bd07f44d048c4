"""The baseline: the tables of m0008, which were made by eight revisions and are now made at once."""

revision = "b0002"
down_revision = "m0008"


def upgrade() -> None:
    """Change nothing: only the revision moves on."""
