"""PRMs behind a model server."""
