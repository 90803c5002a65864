"""Sends every command to Redis under one deadline and one breaker, whatever the topology."""
