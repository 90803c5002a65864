"""Who hears of a ``Record``: metrics and the log."""
