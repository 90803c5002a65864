"""How many calls a route may make, and which call is next."""
