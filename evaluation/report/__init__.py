"""The report page: input, tables, charts, HTML."""
