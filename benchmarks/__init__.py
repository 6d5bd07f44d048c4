"""Measurements, each against a named alternative in the same run; none is asserted in a test."""
