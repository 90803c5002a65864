"""Counts how many calls a route may make, and says whose turn is next."""
