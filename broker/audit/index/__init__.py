"""The derived index: what the record says by who, what and when, in a SQLite file that can be lost."""
