"""A query from its text to its hits: planned, matched by words and by meaning, fused, expanded to records."""
