"""PRMs on a model server."""
