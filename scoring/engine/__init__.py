"""The shared-prefix scoring engine."""
