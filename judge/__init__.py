"""RAG-as-a-judge: evidence and a trace go in, verdicts with verified quotes come out."""
