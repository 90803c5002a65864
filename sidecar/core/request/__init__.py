"""Who asks, and what of a request's head counts."""
