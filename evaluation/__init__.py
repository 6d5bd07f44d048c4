"""Labelers on trial: first-error and step metrics with intervals, and the report."""
