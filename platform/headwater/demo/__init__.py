"""Self-made data for the demo, the tests and the benchmarks: an incident, and raw log lines of many shapes."""
