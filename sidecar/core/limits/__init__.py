"""How many calls a route may make, and whose turn is next."""
