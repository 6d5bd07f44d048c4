"""The baseline: the tables of m0008, from here on made at once instead of by eight revisions."""

revision = "b0002"
down_revision = "m0008"


def upgrade() -> None:
    """Change nothing: only the revision advances."""
