"""Text models behind one protocol: Gemini, OpenAI-compatible servers, transformers; retries and prices."""
