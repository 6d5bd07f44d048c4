"""Encoder, vectors, FAISS index, files and updates."""
