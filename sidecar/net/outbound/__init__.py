"""The client: requests to AI services, and their answers."""
