"""What a record's text says of itself: its time, its level, its fields, and where its message begins."""
