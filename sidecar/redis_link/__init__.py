"""The way to Redis: one deadline, one breaker, every topology. What is stored there is decided elsewhere."""
