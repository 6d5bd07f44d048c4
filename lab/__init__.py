"""The dosing lab: a synthetic guideline domain with exact truth, and the tiny models trained on it."""
