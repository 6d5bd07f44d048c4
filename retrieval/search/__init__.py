"""Queries, BM25, fusion, reranking, choice of passages."""
