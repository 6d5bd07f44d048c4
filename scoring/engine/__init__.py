"""The scoring engine, which computes common prefixes of traces once."""
