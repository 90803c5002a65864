"""What pods share through one Redis: the client and its breaker, leases, the log of purges."""
