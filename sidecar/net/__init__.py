"""Sockets: the listener that takes calls, and the client that makes them."""
