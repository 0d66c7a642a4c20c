"""The keyword index: one tantivy index for all topics of a data directory."""
