"""For which service, endpoint and route a request is."""
