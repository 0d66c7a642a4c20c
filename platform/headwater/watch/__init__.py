"""Standing queries: live searches, and watches that wake whoever waits for them."""
