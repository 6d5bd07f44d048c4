"""Batch services: jobs, waves, results that survive a restart."""
