"""Image tokens of vision-language PRMs."""
