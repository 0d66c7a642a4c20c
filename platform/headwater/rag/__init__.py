"""Questions answered from records, with citations that are checked."""
