"""The field's formats, one plug-in each."""
