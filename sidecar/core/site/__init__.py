"""Which service, endpoint and route a request is for."""
