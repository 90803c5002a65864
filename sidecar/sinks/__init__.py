"""Hear of every request by its ``Record``, and change nothing: metrics and the log."""
