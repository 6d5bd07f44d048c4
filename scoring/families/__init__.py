"""Built-in PRM families, one file each: prompt, marker, read-out, published aggregation."""
