"""Finds the service, the endpoint and the route of a request."""
