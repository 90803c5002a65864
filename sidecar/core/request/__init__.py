"""Reads from a request's head who asks and what of it counts."""
