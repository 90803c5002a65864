"""From a request's body to the key of its answer."""
