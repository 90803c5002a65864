"""Moves bytes between sockets and requests; what a call means is decided elsewhere."""
