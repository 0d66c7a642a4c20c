"""How records come in: entries checked and normalised, sources and their batches, doors for what is pushed."""
