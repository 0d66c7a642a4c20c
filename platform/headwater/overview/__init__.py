"""What a topic is like at a glance: its patterns, what their places hold, its course in time, whether it has changed."""
