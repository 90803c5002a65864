"""Reads what HTTP says in header fields, waits, events and error bodies."""
