"""Rows in, dataclasses out: nothing else in storage/ knows which column holds which field."""
