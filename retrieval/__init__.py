"""Corpora to passages to a FAISS index to evidence within a token budget."""
