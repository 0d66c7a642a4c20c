"""The log: the SQLite database that is the only truth, and what each part of Headwater keeps in it."""
