"""Gemini through google-genai: client, model, images, batch jobs."""
