"""Headwater's terminal UI: what agents see, for people. `headwater tui` starts it; see docs/reference/tui.md."""
