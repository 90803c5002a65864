"""Decisions only: no sockets, files, clock, randomness, event loop or logging. ``now`` is an argument."""
