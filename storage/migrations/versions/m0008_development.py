"""The last schema before the baseline; where upgrades of existing databases start."""

revision = "m0008"
down_revision = None
