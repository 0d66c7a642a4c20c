"""Detectors: what is odd in a stream, judged as it flows, with an explanation and within a budget of alerts."""
