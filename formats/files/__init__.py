"""Containers: JSON, gzip, Parquet, images; streaming and bounded."""
