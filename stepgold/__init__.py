"""The application layer: one workspace, one method a verb."""
