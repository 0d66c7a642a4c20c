"""Webhooks: addresses that are called, signed and at least once, for alerts and for what watches fire."""
