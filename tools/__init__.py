"""Checks that the repository runs on itself; nothing here is shipped."""
